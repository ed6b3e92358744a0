/*
 * What migration asks about guest_memfd RAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_GUEST_MEMFD_H
#define MIGRATION_GUEST_MEMFD_H

#include "qapi/qapi-types-migration.h"
#include "system/guest-memfd-holes.h"
#include "system/guest-memfd-kvm.h"

/**
 * gmem_check_userfault: can userfaultfd do its work on a RAMBlock?
 *
 * @rb: a RAMBlock with @rb->gmem
 * @cap: MIGRATION_CAPABILITY_POSTCOPY_RAM or _BACKGROUND_SNAPSHOT
 * @errp: set with a sentence that names the capability, the backend and the
 *     remedy
 *
 * Called when a destination prepares for postcopy.
 *
 * Returns: true if it can
 */
bool gmem_check_userfault(RAMBlock *rb, MigrationCapability cap, Error **errp);

/**
 * gmem_check_snapshot: refuse background snapshots that cannot work
 *
 * @caps: the migration capabilities, indexed by MigrationCapability
 * @errp: as for gmem_check_userfault()
 *
 * Called when capabilities are set and, as memory may have been plugged since,
 * again when a migration starts.  Postcopy is not asked for here: only its
 * destination needs userfaultfd.
 *
 * Returns: true if all guest_memfd RAM can do what @caps need
 */
bool gmem_check_snapshot(const bool *caps, Error **errp);

/**
 * gmem_migration_begins: a migration is about to start dirty logging
 *
 * Called on the migration thread, without the BQL.
 */
void gmem_migration_begins(void);

/**
 * gmem_migration_ended: ... and its thread has ended
 *
 * Called with the BQL held, for every thread of a migration, background
 * snapshots included.
 */
void gmem_migration_ended(void);

/**
 * GmemCursor: what the sending thread knows of the pages that it sends next
 *
 * @holes: which of them exist
 * @last: the page that was asked for last
 *
 * Zeroed when the migration starts.
 */
typedef struct GmemCursor {
    GmemHoles holes;
    uint64_t last;
} GmemCursor;

/**
 * gmem_page_is_hole: can a page be sent as zeroes without being read?
 *
 * @cursor: of this thread
 * @rb: any RAMBlock; the answer is no unless it is guest_memfd RAM
 * @offset: of the page, in bytes
 *
 * While dirty logging is on, a page that is a hole is full of zeroes at that
 * moment, and whoever writes to it later is logged.  Called after the page was
 * cleared in the dirty bitmaps, by the thread that sends it.  When it comes to
 * a page for the first time, the following ones that exist are made present in
 * the host mapping.
 */
bool gmem_page_is_hole(GmemCursor *cursor, RAMBlock *rb, uint64_t offset);

/**
 * gmem_cursor_forget: dirty bitmaps were merged: what is known may be old
 *
 * A page whose new dirty bit was merged with an old one must be asked for
 * anew.  Called under the same lock as gmem_page_is_hole(), by any thread:
 * with auto-converge, the main thread synchronises, too.
 */
void gmem_cursor_forget(GmemCursor *cursor);

/**
 * GmemLoad: what the loading thread knows of the pages that came
 *
 * @zeroes_rb: of zero pages that came in a row, and are not handled yet
 * @zeroes: the first of them, in bytes
 * @zeroes_size: of all, in bytes
 * @zeroes_ahead: memory was made for some of them
 * @first: a page has come to which nothing came before, nor to any behind it
 * @rb: of guest_memfd RAM, the block that the last page was of
 * @next: behind its last page with contents, in bytes
 * @run: how much came in a row until there, in bytes
 * @ahead: up to where memory was made, in bytes
 *
 * Zeroed for each part of a stream.
 */
typedef struct GmemLoad {
    RAMBlock *zeroes_rb;
    uint64_t zeroes;
    uint64_t zeroes_size;
    bool zeroes_ahead;
    bool first;
    RAMBlock *rb;
    uint64_t next;
    uint64_t run;
    uint64_t ahead;
} GmemLoad;

/**
 * gmem_load_begins: guest memory is about to be loaded, all of it
 *
 * Called with the BQL held and the vCPUs stopped.
 */
void gmem_load_begins(void);

/**
 * gmem_load_record: a record of the stream has come
 *
 * @load: of this part of the stream
 * @rb: the block of the page before
 * @offset: in bytes, if the record is about a page
 * @flags: RAM_SAVE_FLAG_*
 *
 * Zero pages that came before are handled, so that what comes now can be
 * written.  Where pages with contents come in a row, another thread makes
 * memory for those that will follow: only in the first pass, which comes to
 * each page.  What then comes as a zero page, or not at all, is a hole again,
 * at the end of each part of the stream at the latest.
 */
void gmem_load_record(GmemLoad *load, RAMBlock *rb, uint64_t offset, int flags);

/**
 * gmem_zero_page: a zero page has come
 *
 * @load: after gmem_load_record()
 * @host: where it is mapped
 * @size: in bytes
 *
 * A hole stays one; a page that exists becomes one, or is zeroed, when
 * gmem_load_record() is called for anything else.
 *
 * Returns: false if this is not guest_memfd RAM; then nothing is done
 */
bool gmem_zero_page(GmemLoad *load, void *host, uint64_t size);

#endif
