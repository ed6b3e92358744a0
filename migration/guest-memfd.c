/*
 * What migration asks about guest_memfd RAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "qemu/userfaultfd.h"
#include "system/ramblock.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "guest-memfd.h"
#include "migration-stats.h"
#include "options.h"

/*
 * What needs userfaultfd, and so may not work: the target of a postcopy
 * migration, and background snapshots
 */

static const struct {
    uint64_t feature;
    uint64_t mode;
} userfault_use[] = {
    [MIGRATION_CAPABILITY_POSTCOPY_RAM] = {
        0, UFFDIO_REGISTER_MODE_MISSING
    },
    [MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT] = {
        UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFDIO_REGISTER_MODE_WP
    },
};

/*
 * Ask the kernel, with a file of one page: up to Linux 7.3 UFFDIO_REGISTER
 * gives EINVAL, and no capability or version tells when that will change.
 */
static bool try_userfault(MigrationCapability cap, const char *id,
                          Error **errp)
{
    int uffd = uffd_create_fd(userfault_use[cap].feature, false);
    void *page = NULL;
    bool ret = false;
    int fd;

    if (uffd < 0) {
        error_setg_errno(errp, errno, "%s is not possible: this process cannot"
                         " use userfaultfd%s", MigrationCapability_str(cap),
                         errno == EPERM || errno == EACCES
                         ? "; allow it (sysctl vm.unprivileged_userfaultfd, or"
                           " access to /dev/userfaultfd)" : "");
        return false;
    }
    page = kvm_gmem_create_page(&fd);
    if (!page) {
        error_setg(errp, "%s is not possible: it cannot be found out whether"
                   " userfaultfd supports the guest_memfd of memory backend"
                   " '%s'", MigrationCapability_str(cap), id);
    } else if (uffd_register_memory(uffd, page, qemu_real_host_page_size(),
                                    userfault_use[cap].mode, NULL)) {
        error_setg(errp, "%s is not possible: memory backend '%s' is a"
                   " guest_memfd, which this kernel's userfaultfd does not"
                   " support; use %s or memory-backend-memfd",
                   MigrationCapability_str(cap), id,
                   cap == MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT
                   ? "snapshot-save" : "precopy");
    } else {
        ret = true;
    }
    if (page) {
        kvm_gmem_destroy_page(page, fd);
    }
    uffd_close_fd(uffd);
    return ret;
}

bool gmem_check_userfault(RAMBlock *rb, MigrationCapability cap, Error **errp)
{
    const char *id = gmem_backend_id(rb);

    if (!try_userfault(cap, id, errp)) {
        return false;
    }
    if (rb->gmem->kvm_bind != ON_OFF_AUTO_OFF) {
        error_setg(errp, "%s is not possible: userfaultfd does not see faults"
                   " in bound memslots of memory backend '%s'; create it with"
                   " kvm-bind=off", MigrationCapability_str(cap), id);
        return false;
    }
    return true;
}

bool gmem_check_snapshot(const bool *caps, Error **errp)
{
    const MigrationCapability cap = MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT;
    RAMBlock *rb;

    if (!caps[cap]) {
        return true;
    }
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        /* Memory that is not plugged is not saved */
        if (rb->gmem && gmem_backend_id(rb) && qemu_ram_is_migratable(rb) &&
            !gmem_check_userfault(rb, cap, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Source
 */

/* gmem_migration_begins() was called; under the BQL */
static bool prepared;

void gmem_migration_begins(void)
{
    bql_lock();
    prepared = true;
    bql_unlock();
    kvm_gmem_logging_begins();
}

void gmem_migration_ended(void)
{
    if (prepared) {
        prepared = false;
        kvm_gmem_logging_ended();
    }
}

/*
 * One call for many pages takes half the time of a fault for each.  The target
 * should not wait meanwhile, so that must be over before it has taken what is
 * in the socket's buffer, which may be small.
 */
#define POPULATE_MAX (64 * KiB)

/* That the page exists was just found out: no hole gets memory here */
static void populate(const GmemHoles *holes, uint64_t offset)
{
    size_t page_size = qemu_real_host_page_size();
    uint64_t start = ROUND_DOWN(offset, page_size), end = start;

    while (end < MIN(start + POPULATE_MAX, holes->end) &&
           !gmem_holes_at(holes, end)) {
        end += page_size;
    }
    madvise(holes->rb->host + start, end - start, MADV_POPULATE_READ);
    holes->rb->gmem->populated = end;
}

bool gmem_page_is_hole(GmemCursor *cursor, RAMBlock *rb, uint64_t offset)
{
    GmemHoles *holes = &cursor->holes;

    if (!rb->gmem || migrate_background_snapshot()) {
        return false;
    }
    /*
     * What is known of a page must have been found out after it was cleared
     * in the dirty bitmaps.  KVM's are cleared for a chunk at a time, when the
     * first page of it is sent, and at a synchronisation: see
     * gmem_cursor_forget().
     */
    if (holes->rb != rb || offset < cursor->last || offset >= holes->end) {
        /* The first pass comes to each block once */
        if (holes->rb != rb && stat64_get(&mig_stats.dirty_sync_count) <= 1) {
            rb->gmem->populated = 0;
        }
        uint64_t chunk = (uint64_t)qemu_target_page_size()
                         << rb->clear_bmap_shift;

        gmem_holes_find(holes, rb, offset,
                        MIN(ROUND_UP(offset + 1, chunk), rb->used_length));
    }
    cursor->last = offset;
    if (gmem_holes_at(holes, offset)) {
        return true;
    }
    /* The guest may be stopped before the first pass is over */
    if (offset >= rb->gmem->populated) {
        populate(holes, offset);
    }
    return false;
}

void gmem_cursor_forget(GmemCursor *cursor)
{
    cursor->holes.rb = NULL;
}
