/*
 * What needs userfaultfd, and so may not work with guest_memfd RAM: postcopy
 * migration and background snapshots
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/rcu.h"
#include "qemu/userfaultfd.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "qom/object.h"
#include "system/guest-memfd.h"

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
static bool kernel_has_userfault(MigrationCapability cap)
{
    size_t size = qemu_real_host_page_size();
    int fd = kvm_guest_memfd_create(size, NULL);
    int uffd = uffd_create_fd(userfault_use[cap].feature, false);
    void *page = MAP_FAILED;
    bool ret = false;

    if (fd >= 0 && uffd >= 0) {
        page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (page != MAP_FAILED) {
        ret = uffd_register_memory(uffd, page, size, userfault_use[cap].mode,
                                   NULL) == 0;
        munmap(page, size);
    }
    if (uffd >= 0) {
        uffd_close_fd(uffd);
    }
    if (fd >= 0) {
        close(fd);
    }
    return ret;
}

bool guest_memfd_check_userfault(RAMBlock *rb, MigrationCapability cap,
                                 Error **errp)
{
    const char *id = object_get_canonical_path_component(rb->mr->owner);

    if (!kernel_has_userfault(cap)) {
        error_setg(errp, "%s is not possible: memory backend '%s' is a"
                   " guest_memfd, which this kernel's userfaultfd does not"
                   " support; use precopy or memory-backend-memfd",
                   MigrationCapability_str(cap), id);
        return false;
    }
    if (rb->gmem->kvm_bind != ON_OFF_AUTO_OFF) {
        error_setg(errp, "%s is not possible: page faults in the bound"
                   " memslots of memory backend '%s' pass userfaultfd by;"
                   " create it with kvm-bind=off",
                   MigrationCapability_str(cap), id);
        return false;
    }
    return true;
}

bool guest_memfd_check_migration(const bool *caps, Error **errp)
{
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    for (int cap = 0; cap < ARRAY_SIZE(userfault_use); cap++) {
        if (!userfault_use[cap].mode || !caps[cap]) {
            continue;
        }
        RAMBLOCK_FOREACH(rb) {
            if (rb->gmem && !guest_memfd_check_userfault(rb, cap, errp)) {
                return false;
            }
        }
    }
    return true;
}
