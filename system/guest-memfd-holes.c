/*
 * Which pages of guest_memfd RAM exist
 *
 * Such memory is never swapped.  What the guest does not use must stay a hole,
 * so whoever is about to read all of RAM asks here first.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/rcu.h"
#include "system/address-spaces.h"
#include "exec/cpu-common.h"
#include "system/memory.h"
#include "system/ramblock.h"
#include "system/guest-memfd-holes.h"

/* Whole pages; where the kernel does not answer, all exist */
static void find_present(RAMBlock *rb, uint64_t start, uint64_t size,
                         unsigned char *present)
{
    if (mincore(rb->host + start, size, present)) {
        memset(present, 1, size / qemu_real_host_page_size());
    }
}

void gmem_holes_find(GmemHoles *holes, RAMBlock *rb, uint64_t start,
                     uint64_t end)
{
    size_t page_size = qemu_real_host_page_size();

    holes->rb = rb;
    holes->start = ROUND_DOWN(start, page_size);
    holes->end = MIN(ROUND_UP(end, page_size),
                     holes->start + GMEM_HOLES_PAGES * page_size);
    holes->end = MIN(holes->end, rb->max_length);
    find_present(rb, holes->start, holes->end - holes->start, holes->present);
}

bool gmem_holes_at(const GmemHoles *holes, uint64_t offset)
{
    uint64_t page = (offset - holes->start) / qemu_real_host_page_size();

    return !(holes->present[page] & 1);
}

uint64_t gmem_allocated(RAMBlock *rb)
{
    size_t page_size = qemu_real_host_page_size();
    g_autofree GmemHoles *holes = g_new(GmemHoles, 1);
    uint64_t pages = 0;

    for (uint64_t at = 0; at < rb->max_length; at = holes->end) {
        gmem_holes_find(holes, rb, at, rb->max_length);
        for (uint64_t i = 0; i < (holes->end - at) / page_size; i++) {
            pages += holes->present[i] & 1;
        }
    }
    return pages * page_size;
}

/* Each thread's, for what has pages of both kinds */
static GPrivate copy = G_PRIVATE_INIT(g_free);

/* @skip: the bytes of the first page that are before @host */
static const void *copy_present(const uint8_t *host, size_t skip, size_t size,
                                const unsigned char *present)
{
    size_t page_size = qemu_real_host_page_size(), n;
    uint8_t *to = g_private_get(&copy);

    if (!to) {
        to = g_malloc(GMEM_READ_MAX);
        g_private_set(&copy, to);
    }
    for (size_t done = 0; done < size; done += n) {
        size_t at = skip + done;

        n = MIN(page_size - at % page_size, size - done);
        if (present[at / page_size] & 1) {
            memcpy(to + done, host + done, n);
        } else {
            memset(to + done, 0, n);
        }
    }
    return to;
}

const void *gmem_readable(const void *host, size_t size)
{
    static const uint8_t zeroes[GMEM_READ_MAX];
    size_t page_size = qemu_real_host_page_size(), pages, found = 0;
    /* Host pages have 4 KiB at least, and the first may be cut */
    unsigned char present[GMEM_READ_MAX / (4 * KiB) + 1];
    ram_addr_t offset;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    rb = qemu_ram_block_from_host((void *)host, false, &offset);
    if (!rb || !rb->gmem || size > GMEM_READ_MAX) {
        return host;
    }
    pages = DIV_ROUND_UP(offset % page_size + size, page_size);
    find_present(rb, ROUND_DOWN(offset, page_size), pages * page_size, present);
    for (size_t i = 0; i < pages; i++) {
        found += present[i] & 1;
    }
    if (found == pages) {
        return host;
    }
    return found ? copy_present(host, offset % page_size, size, present)
                 : zeroes;
}

void gmem_physical_read(hwaddr addr, void *buf, uint64_t size)
{
    MemoryRegionSection section = memory_region_find(get_system_memory(),
                                                     addr, size);
    bool done = false;

    if (section.mr && section.mr->ram_block && section.mr->ram_block->gmem &&
        int128_get64(section.size) == size) {
        const uint8_t *host = section.mr->ram_block->host +
                              section.offset_within_region;
        const void *from = gmem_readable(host, size);

        if (from != host) {
            memcpy(buf, from, size);
            done = true;
        }
    }
    memory_region_unref(section.mr);
    if (!done) {
        cpu_physical_memory_read(addr, buf, size);
    }
}
