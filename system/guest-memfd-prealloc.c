/*
 * Preallocation of guest_memfd RAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/madvise.h"
#include "qemu/units.h"
#include "system/ramblock.h"
#include "exec/ramlist.h"
#include "system/guest-memfd-kvm.h"
#include "trace.h"

/*
 * The list is locked and not read by RCU, since threads that preallocate are
 * not registered with RCU.
 */
static int find_file(void *addr, size_t size, off_t *offset)
{
    RAMBlock *rb;
    int fd = -1;

    qemu_mutex_lock_ramlist();
    RAMBLOCK_FOREACH(rb) {
        if (rb->gmem && (uint8_t *)addr >= rb->host &&
            (uint8_t *)addr + size <= rb->host + rb->max_length) {
            *offset = (uint8_t *)addr - rb->host;
            fd = rb->fd;
            break;
        }
    }
    qemu_mutex_unlock_ramlist();
    return fd;
}

/*
 * Allocate the pages of the file, which is several times faster than
 * MADV_POPULATE_WRITE: they are zeroed at first use, and bound memslots need no
 * host page tables.  These are filled only where KVM looks at them.  Linux,
 * virt/kvm/guest_memfd.c:kvm_gmem_allocate(): KEEP_SIZE is mandatory, any
 * signal interrupts, and what is done stays done.
 */
static int populate(void *addr, size_t size)
{
    const size_t chunk = 64 * MiB;
    off_t offset, end;
    int fd = find_file(addr, size, &offset);

    if (fd < 0) {
        return madvise(addr, size, MADV_POPULATE_WRITE);
    }
    trace_guest_memfd_prealloc(fd, offset, size);
    for (end = offset + size; offset < end; offset += chunk) {
        int ret = RETRY_ON_EINTR(fallocate(fd, FALLOC_FL_KEEP_SIZE, offset,
                                           MIN(chunk, end - offset)));

        if (ret < 0) {
            return ret;
        }
    }
    return kvm_gmem_shadows_page_tables()
           ? madvise(addr, size, MADV_POPULATE_WRITE) : 0;
}

void gmem_prealloc_init(void)
{
    qemu_populate_write = populate;
}
