/*
 * Which pages of guest_memfd RAM exist, and how to read without making more
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_HOLES_H
#define SYSTEM_GUEST_MEMFD_HOLES_H

#include "qemu/units.h"
#include "exec/hwaddr.h"

/* How many pages GmemHoles knows of */
#define GMEM_HOLES_PAGES 4096

/**
 * GmemHoles: which pages of a part of a block exist
 *
 * @rb: the block
 * @start: first byte of the part
 * @end: byte behind its last
 * @present: for each host page from @start on, whether it exists (bit 0)
 */
typedef struct GmemHoles {
    RAMBlock *rb;
    uint64_t start;
    uint64_t end;
    unsigned char present[GMEM_HOLES_PAGES];
} GmemHoles;

/**
 * gmem_holes_find: ask the kernel which pages of guest_memfd RAM exist
 *
 * @holes: set
 * @rb: a RAMBlock with @rb->gmem
 * @start: in bytes; rounded down to a host page
 * @end: in bytes; less is asked for if it is far
 *
 * mincore() on the host mapping also counts pages that only the guest has
 * touched.  It does not count those that are only preallocated, which read as
 * zeroes.  A process that may not ask (another user than the file's creator)
 * is told that all exist: whoever relies on the answer is slow then, never
 * wrong.  Costs 1.5 to 7 ms for a GiB.
 */
void gmem_holes_find(GmemHoles *holes, RAMBlock *rb, uint64_t start,
                     uint64_t end);

/**
 * gmem_holes_at: is a page a hole?
 *
 * @holes: after gmem_holes_find()
 * @offset: from @holes->start on, before @holes->end
 */
bool gmem_holes_at(const GmemHoles *holes, uint64_t offset);

/**
 * gmem_allocated: how much memory a block has
 *
 * @rb: a RAMBlock with @rb->gmem
 *
 * Returns: bytes, to the page
 */
uint64_t gmem_allocated(RAMBlock *rb);

/* What gmem_readable() is asked for at once: a dump of arm64 has such pages */
#define GMEM_READ_MAX (64 * KiB)

/**
 * gmem_readable: read memory, but do not allocate it
 *
 * @host: in the host's mapping of any RAM
 * @size: in bytes, GMEM_READ_MAX at most; of more, holes are not looked for
 *
 * For those who read all of RAM page by page, like dump-guest-memory: to read
 * a hole of a guest_memfd through the mapping is to fill it for good.
 *
 * Returns: @host; if there are holes of guest_memfd RAM, zeroes or a copy,
 * which is valid until the same thread's next call
 */
const void *gmem_readable(const void *host, size_t size);

/**
 * gmem_physical_read: cpu_physical_memory_read() that does not allocate
 *
 * @addr: guest physical address
 * @buf: filled
 * @size: in bytes, a page at most
 */
void gmem_physical_read(hwaddr addr, void *buf, uint64_t size);

#endif
