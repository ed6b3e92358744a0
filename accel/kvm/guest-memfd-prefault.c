/*
 * Filling a guest's page tables with the memory that is there
 *
 * Preallocation, or an incoming migration, provides the pages of the file, and
 * a memslot that was switched has lost its page tables.  Where KVM has
 * two-dimensional paging, the guest would fault on each page once more:
 * KVM_PRE_FAULT_MEMORY does all of that in a few calls.  A vCPU has to make
 * them.  So they take turns, and the guest runs on the others and in between.
 * Holes stay holes.
 *
 * Where KVM shadows the guest's page tables it cannot do so.  There it takes
 * neighbours of a page from the host's page tables, and those are filled
 * instead: by preallocation (system/guest-memfd-prealloc.c), by whoever loads
 * RAM, and here when memslots have been switched.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <linux/kvm.h>
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "system/address-spaces.h"
#include "system/ramblock.h"
#include "exec/ramlist.h"
#include "system/memory.h"
#include "hw/core/cpu.h"
#include "system/guest-memfd-holes.h"
#include "system/guest-memfd-kvm.h"
#include "system/hostmem.h"
#include "system/kvm_int.h"
#include "system/runstate.h"
#include "guest-memfd-prefault.h"
#include "guest-memfd-switch.h"
#include "guest-memfd-zap.h"
#include "trace.h"

/* How long a vCPU works at a time, and all of them rest then */
#define WORK_US 2000
#define PAUSE_US 5000
#define CHUNK (2 * MiB)

static bool can;                /* KVM has two-dimensional paging */
static bool shadows;            /* KVM shadows the guest's page tables */
static bool incoming;           /* memory came before the VM first ran */

/* All under the BQL */
static GArray *todo;            /* guest memory that is still to be mapped */
static bool whole;              /* ... with what is only preallocated */
static QEMUTimer *timer;
static unsigned int turn;       /* of the vCPU that works next */

static void give_up(void)
{
    g_clear_pointer(&todo, g_array_unref);
    g_clear_pointer(&timer, timer_free);
}

static bool is_preallocated(const RAMBlock *rb)
{
    return MEMORY_BACKEND(rb->mr->owner)->prealloc;
}

/*
 * What mincore() does not see, because it was only preallocated.  Later, all
 * of that has been mapped once, and what is not there was given back.  Nor
 * has virtio-mem a use for what is not plugged.
 */
static bool has_no_holes(const RAMBlock *rb)
{
    return whole && is_preallocated(rb) &&
           !memory_region_has_ram_discard_manager(rb->mr);
}

static void skip(struct kvm_pre_fault_memory *range, uint64_t size)
{
    range->gpa += size;
    range->size -= size;
}

/*
 * Skip what is not there.  What is at these addresses is asked anew each time,
 * since a DIMM may have been replaced.
 *
 * @mr, @host: set to what is there then: the caller unrefs @mr
 *
 * Returns: its size in bytes; 0 if nothing was found yet
 */
static uint64_t skip_holes(struct kvm_pre_fault_memory *range,
                           MemoryRegion **mr, void **host)
{
    size_t page_size = qemu_real_host_page_size();
    uint64_t size = MIN(range->size, CHUNK), from = size, to = size;
    MemoryRegionSection section = memory_region_find(get_system_memory(),
                                                     range->gpa, size);
    RAMBlock *rb = section.mr ? section.mr->ram_block : NULL;

    if (rb && rb->gmem && gmem_backend_id(rb) &&
        section.offset_within_address_space == range->gpa) {
        uint64_t start = section.offset_within_region;
        GmemHoles holes;

        size = MIN(size, int128_get64(section.size));
        from = 0;
        to = size;
        if (!has_no_holes(rb)) {
            gmem_holes_find(&holes, rb, start, start + size);
            while (from < size && gmem_holes_at(&holes, start + from)) {
                from += page_size;
            }
            to = from;
            while (to < size && !gmem_holes_at(&holes, start + to)) {
                to += page_size;
            }
        }
        *host = rb->host + start + from;
    }
    *mr = section.mr;
    skip(range, from);
    return to - from;
}

/*
 * In the guest's page tables or, where KVM looks, in QEMU's.  Without the BQL;
 * leaves in @range what was not done.
 */
static int fill(CPUState *cpu, struct kvm_pre_fault_memory *range, void *host)
{
    if (can) {
        return kvm_vcpu_ioctl(cpu, KVM_PRE_FAULT_MEMORY, range);
    }
    if (madvise(host, range->size, MADV_POPULATE_READ)) {
        return -errno;
    }
    range->size = 0;
    return 0;
}

/* To KVM, what it maps is written then: a dirty ring would overflow */
static bool is_logged(void)
{
    return kvm_gmem_logging_ahead() || global_dirty_tracking;
}

/*
 * On a vCPU.  While KVM works, others may have the BQL, and whatever changes
 * memslots may interrupt it.
 */
static void work(CPUState *cpu, run_on_cpu_data unused)
{
    int64_t end = g_get_monotonic_time() + WORK_US;
    g_autoptr(GArray) mine = todo ? g_array_ref(todo) : NULL;

    while (mine && mine == todo && mine->len && !is_logged() &&
           g_get_monotonic_time() < end) {
        struct kvm_pre_fault_memory *next =
            &g_array_index(mine, struct kvm_pre_fault_memory, mine->len - 1);
        MemoryRegion *mr;
        void *host = NULL;
        uint64_t size = skip_holes(next, &mr, &host);
        struct kvm_pre_fault_memory now = { .gpa = next->gpa, .size = size };
        int ret = 0;

        if (size) {
            bql_unlock();
            ret = fill(cpu, &now, host);
            bql_lock();
        }
        memory_region_unref(mr);
        /* KVM leaves in @now what it has not done */
        skip(next, size - now.size);
        if (ret < 0 && ret != -EINTR && ret != -EAGAIN) {
            /* The memslot may have gone; the guest faults there as ever */
            trace_kvm_guest_memfd_prefault(next->gpa, next->size, ret);
            next->size = 0;
        } else if (ret == -EINTR) {
            end = 0;
        }
        if (!next->size) {
            g_array_set_size(mine, mine->len - 1);
        }
    }
    if (mine && mine == todo) {
        timer_mod(timer, qemu_clock_get_us(QEMU_CLOCK_VIRTUAL) + PAUSE_US);
    }
}

static CPUState *next_cpu(void)
{
    unsigned int n = 0;
    CPUState *cpu;

    CPU_FOREACH(cpu) {
        if (n++ == turn) {
            turn++;
            return cpu;
        }
    }
    turn = 1;
    return first_cpu;
}

/* One vCPU at a time, so that the guest goes on */
static void distribute(void *opaque)
{
    if (todo->len == 0) {
        trace_kvm_guest_memfd_prefault(0, 0, 0);
        give_up();
    } else if (is_logged()) {
        /* The end of logging begins anew */
        give_up();
    } else {
        async_run_on_cpu(next_cpu(), work, RUN_ON_CPU_NULL);
    }
}

static void collect(RAMBlock *rb)
{
    g_autoptr(GuestMemfdSlotList) slots = kvm_gmem_query_slots(rb);

    for (GuestMemfdSlotList *s = slots; s; s = s->next) {
        if (s->value->state == GUEST_MEMFD_SLOT_STATE_BOUND) {
            struct kvm_pre_fault_memory range = {
                .gpa = s->value->gpa, .size = s->value->size,
            };

            g_array_append_val(todo, range);
            trace_kvm_guest_memfd_prefault(range.gpa, range.size, 0);
        }
    }
}

static void begin(bool first)
{
    RAMBlock *rb;

    /* What was loaded or preallocated is in QEMU's page tables */
    if (first ? !can : !can && !shadows) {
        return;
    }
    /* The guest's would not last */
    if (can && !kvm_gmem_zaps_slot_only()) {
        return;
    }
    give_up();
    whole = first;
    todo = g_array_new(false, false, sizeof(struct kvm_pre_fault_memory));
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (rb->gmem && gmem_backend_id(rb) &&
            (is_preallocated(rb) || incoming || !first)) {
            collect(rb);
        }
    }
    timer = timer_new_us(QEMU_CLOCK_VIRTUAL, distribute, NULL);
    distribute(NULL);
}

static void vm_state_changed(void *opaque, bool running, RunState state)
{
    static bool done;

    if (running && !done) {
        done = true;
        begin(true);
    }
}

void kvm_gmem_prefault(void)
{
    begin(false);
}

void kvm_gmem_init_prefault(void)
{
    can = kvm_vm_check_extension(kvm_state, KVM_CAP_PRE_FAULT_MEMORY) > 0;
    shadows = kvm_gmem_shadows_page_tables();
    incoming = runstate_check(RUN_STATE_INMIGRATE);
    qemu_add_vm_change_state_handler(vm_state_changed, NULL);
}
