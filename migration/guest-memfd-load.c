/*
 * Loading guest_memfd RAM from a stream: memory is there when a page comes,
 * and holes stay holes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/thread.h"
#include "qemu/units.h"
#include "system/ramblock.h"
#include "system/memory.h"
#include "exec/cpu-common.h"
#include "exec/ramlist.h"
#include "exec/target_page.h"
#include "qemu/rcu.h"
#include "system/hostmem.h"
#include "guest-memfd.h"
#include "ram.h"

/* Less than this is zeroed in less time than it takes to free it */
#define PUNCH_MIN (64 * KiB)

/*
 * When so much has come in a row, more will: a thread makes memory for as much
 * again, but not for more than this
 */
#define AHEAD_AFTER (64 * KiB)
#define AHEAD_MAX (1 * MiB)

/* What the thread is to do next, and whether it does something */
static struct {
    bool running;
    QemuMutex lock;
    QemuCond changed;
    uint8_t *start, *end;
    bool busy;
} worker;

static void *populate_ahead(void *opaque)
{
    qemu_mutex_lock(&worker.lock);
    while (true) {
        uint8_t *start = worker.start, *end = worker.end;

        if (start == end) {
            qemu_cond_wait(&worker.changed, &worker.lock);
            continue;
        }
        worker.start = end;
        worker.busy = true;
        qemu_mutex_unlock(&worker.lock);
        madvise(start, end - start, MADV_POPULATE_WRITE);
        qemu_mutex_lock(&worker.lock);
        worker.busy = false;
        qemu_cond_broadcast(&worker.changed);
    }
    return NULL;
}

/* Whoever is late must not fall behind: the thread forgets older wishes */
static void want_ahead(uint8_t *start, uint8_t *end)
{
    if (!worker.running) {
        QemuThread thread;

        worker.running = true;
        qemu_mutex_init(&worker.lock);
        qemu_cond_init(&worker.changed);
        qemu_thread_create(&thread, "gmem-load", populate_ahead, NULL,
                           QEMU_THREAD_DETACHED);
    }
    qemu_mutex_lock(&worker.lock);
    worker.start = start;
    worker.end = end;
    qemu_cond_broadcast(&worker.changed);
    qemu_mutex_unlock(&worker.lock);
}

/* The thread does nothing after this */
static void stop_ahead(void)
{
    if (!worker.running) {
        return;
    }
    qemu_mutex_lock(&worker.lock);
    worker.start = worker.end;
    while (worker.busy) {
        qemu_cond_wait(&worker.changed, &worker.lock);
    }
    qemu_mutex_unlock(&worker.lock);
}

/* Memory that must stay: a device has it, or it was paid for in advance */
static bool must_keep(RAMBlock *rb)
{
    return ram_block_discard_is_disabled() ||
           MEMORY_BACKEND(rb->mr->owner)->prealloc;
}

static void clear_present(RAMBlock *rb, uint64_t start, uint64_t size,
                          uint64_t punch_min)
{
    if (size >= punch_min && QEMU_IS_ALIGNED(start | size, rb->page_size) &&
        !must_keep(rb) && ram_block_discard_range(rb, start, size) == 0) {
        return;
    }
    memset(rb->host + start, 0, size);
}

/* Holes stay; what exists becomes one if it is large enough, or is zeroed */
static void clear(RAMBlock *rb, uint64_t start, uint64_t end,
                  uint64_t punch_min)
{
    g_autofree GmemHoles *holes = g_new(GmemHoles, 1);

    for (uint64_t at = start; at < end; at = holes->end) {
        start = at;
        gmem_holes_find(holes, rb, at, end);
        for (at = holes->start; at < MIN(holes->end, end);
             at += qemu_real_host_page_size()) {
            if (gmem_holes_at(holes, at)) {
                if (at > start) {
                    clear_present(rb, start, at - start, punch_min);
                }
                start = at + qemu_real_host_page_size();
            }
        }
        if (MIN(holes->end, end) > start) {
            clear_present(rb, start, MIN(holes->end, end) - start, punch_min);
        }
    }
}

static void flush_zeroes(GmemLoad *load)
{
    uint64_t end = load->zeroes + load->zeroes_size;
    RAMBlock *rb = load->zeroes_rb;

    if (!load->zeroes_size) {
        return;
    }
    load->zeroes_size = 0;
    if (load->zeroes_ahead) {
        stop_ahead();
    }
    clear(rb, load->zeroes, end,
          load->zeroes_ahead ? rb->page_size : PUNCH_MIN);
}

bool gmem_zero_page(GmemLoad *load, void *host, uint64_t size)
{
    ram_addr_t offset;
    RAMBlock *rb = qemu_ram_block_from_host(host, false, &offset);

    /* COLO's copy of RAM is in no block */
    if (!rb || !rb->gmem) {
        return false;
    }
    if (load->zeroes_rb != rb || offset != load->zeroes + load->zeroes_size) {
        flush_zeroes(load);
        load->zeroes_rb = rb;
        load->zeroes = offset;
        load->zeroes_ahead = false;
    }
    load->zeroes_size += size;
    load->zeroes_ahead |= load->first && offset < load->ahead;
    return true;
}

/*
 * Nothing came for memory that was made from @start on: the guest has told that
 * it is free, or virtio-mem has not plugged it.  That is not concluded from the
 * order alone, since pages may be sent out of turn.
 */
static void clear_missing(RAMBlock *rb, uint64_t start, uint64_t end)
{
    uint64_t next;

    if (start < end) {
        stop_ahead();
    }
    for (; start < end; start = next + qemu_target_page_size()) {
        next = start;
        while (next < end && !ramblock_recv_bitmap_test_byte_offset(rb, next)) {
            next += qemu_target_page_size();
        }
        clear(rb, start, next, rb->page_size);
    }
}

/* Nothing more comes in a row */
static void forget_run(GmemLoad *load)
{
    if (load->rb) {
        clear_missing(load->rb, load->rb->gmem->come, load->ahead);
    }
    load->rb = NULL;
    load->run = 0;
    load->ahead = 0;
}

/* A page with contents has come, in the first pass */
static void look_ahead(GmemLoad *load, uint64_t offset)
{
    uint64_t size = qemu_target_page_size(), window, start, end;
    RAMBlock *rb = load->rb;

    load->run = offset == load->next ? load->run + size : size;
    load->next = offset + size;
    window = MIN(load->run, AHEAD_MAX);
    if (load->run < AHEAD_AFTER || load->next + window / 2 <= load->ahead) {
        return;
    }
    start = ROUND_UP(MAX(load->next, load->ahead), rb->page_size);
    end = MIN(ROUND_UP(load->next + window, rb->page_size), rb->used_length);
    if (start < end) {
        want_ahead(rb->host + start, rb->host + end);
        load->ahead = end;
    }
}

void gmem_load_record(GmemLoad *load, RAMBlock *rb, uint64_t offset, int flags)
{
    bool page = flags & (RAM_SAVE_FLAG_PAGE | RAM_SAVE_FLAG_ZERO |
                         RAM_SAVE_FLAG_XBZRLE);
    bool same = page && flags & RAM_SAVE_FLAG_CONTINUE && rb;
    Gmem *gmem = same ? rb->gmem : NULL;

    if (!(flags & RAM_SAVE_FLAG_ZERO)) {
        flush_zeroes(load);
    }
    if (flags & RAM_SAVE_FLAG_EOS || (page && (!gmem || rb != load->rb))) {
        forget_run(load);
        load->rb = gmem ? rb : NULL;
    }
    load->first = gmem && offset >= gmem->come;
    if (!load->first) {
        return;
    }
    clear_missing(rb, gmem->come, MIN(offset, load->ahead));
    gmem->come = offset + qemu_target_page_size();
    if (flags & RAM_SAVE_FLAG_PAGE) {
        look_ahead(load, offset);
    }
}

void gmem_load_begins(void)
{
    RAMBlock *rb;

    WITH_RCU_READ_LOCK_GUARD() {
        RAMBLOCK_FOREACH(rb) {
            if (rb->gmem) {
                rb->gmem->come = 0;
            }
        }
    }
    kvm_gmem_drop_page_tables();
}
