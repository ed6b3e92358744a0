/*
 * Making the pages of a guest_memfd present before they are needed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/madvise.h"
#include "qemu/mmap-alloc.h"
#include "qemu/units.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "system/guest-memfd.h"
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
 * Allocate the pages of the file: bound memslots need no host page tables, and
 * without them it is several times faster than MADV_POPULATE_WRITE.  Pages are
 * zeroed at first use.  Linux, virt/kvm/guest_memfd.c:kvm_gmem_allocate():
 * KEEP_SIZE is mandatory, any signal interrupts, and what is done stays done.
 */
static int populate(void *addr, size_t size)
{
    const size_t chunk = 64 * MiB;
    off_t offset, end;
    int fd = find_file(addr, size, &offset);

    if (fd < 0) {
        return qemu_madvise(addr, size, QEMU_MADV_POPULATE_WRITE) ? -errno : 0;
    }
    trace_guest_memfd_prealloc(fd, offset, size);
    for (end = offset + size; offset < end; offset += chunk) {
        int ret = RETRY_ON_EINTR(fallocate(fd, FALLOC_FL_KEEP_SIZE, offset,
                                           MIN(chunk, end - offset)));

        if (ret < 0) {
            return -errno;
        }
    }
    return 0;
}

void guest_memfd_prealloc_init(void)
{
    qemu_prealloc_populate = populate;
}

/*
 * Nobody but the guest may have touched the pages until now, through bound
 * memslots: then the host mapping is empty.  One call for many pages takes
 * half the time of a fault for each.  Pages that are not to be sent, such as
 * unplugged ones, may have no memory and must not get any.
 */
void guest_memfd_prefault(RAMBlock *rb, unsigned long page)
{
    const unsigned long most = 16 * MiB >> qemu_target_page_bits();
    unsigned long pages = rb->used_length >> qemu_target_page_bits();
    unsigned long end;

    if (!rb->gmem || page < rb->gmem->prefaulted) {
        return;
    }
    end = find_next_zero_bit(rb->bmap, MIN(pages, page + most), page);
    if (page < end) {
        rb->gmem->prefaulted = end;
        trace_guest_memfd_prefault(rb->idstr, page, end - page);
        qemu_madvise(rb->host + ((uint64_t)page << qemu_target_page_bits()),
                     (uint64_t)(end - page) << qemu_target_page_bits(),
                     QEMU_MADV_POPULATE_WRITE);
    }
}
