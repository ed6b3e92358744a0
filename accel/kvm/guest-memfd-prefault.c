/*
 * Filling a guest's page tables with the memory that is there
 *
 * Preallocation, or an incoming migration, provides the pages of the file, and
 * a memslot that was switched has lost its page tables.  Where KVM has
 * two-dimensional paging, the guest would fault on each page once more:
 * KVM_PRE_FAULT_MEMORY does all of that in a few calls.  A vCPU has to make
 * them.  So each takes a share now and then, and the guest runs in between.
 * Holes stay holes.
 *
 * Where KVM shadows the guest's page tables it cannot do so.  There it takes
 * neighbours of a page from the host's page tables, and preallocation fills
 * those instead (system/guest-memfd-prealloc.c).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "system/address-spaces.h"
#include "system/ramblock.h"
#include "exec/ramlist.h"
#include "system/memory.h"
#include "hw/core/cpu.h"
#include "system/guest-memfd.h"
#include "system/hostmem.h"
#include "system/kvm_int.h"
#include "system/runstate.h"
#include "guest-memfd-prefault.h"
#include "guest-memfd-zap.h"
#include "trace.h"

/* How long a vCPU, which has the BQL, works at a time, and rests */
#define WORK_US 2000
#define PAUSE_US 5000
#define CHUNK (2 * MiB)

static bool can;                /* KVM has two-dimensional paging */
static bool incoming;           /* memory came before the VM first ran */

/* Guest memory that is still to be mapped; under the BQL */
static GArray *todo;
static QEMUTimer *timer;

static void give_up(void)
{
    g_clear_pointer(&todo, g_array_unref);
    g_clear_pointer(&timer, timer_free);
}

static bool is_preallocated(const RAMBlock *rb)
{
    return MEMORY_BACKEND(rb->mr->owner)->prealloc;
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
 * Returns: how much is there then, in bytes; 0 if nothing was found yet
 */
static uint64_t skip_holes(struct kvm_pre_fault_memory *range)
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
        if (!is_preallocated(rb)) {
            gmem_holes_find(&holes, rb, start, start + size);
            while (from < size && gmem_holes_at(&holes, start + from)) {
                from += page_size;
            }
            to = from;
            while (to < size && !gmem_holes_at(&holes, start + to)) {
                to += page_size;
            }
        }
    }
    memory_region_unref(section.mr);
    skip(range, MIN(from, range->size));
    return MIN(to - from, range->size);
}

/* On a vCPU */
static void work(CPUState *cpu, run_on_cpu_data unused)
{
    int64_t end = g_get_monotonic_time() + WORK_US;

    while (todo && todo->len && g_get_monotonic_time() < end) {
        struct kvm_pre_fault_memory *next =
            &g_array_index(todo, struct kvm_pre_fault_memory, todo->len - 1);
        uint64_t size = skip_holes(next);
        struct kvm_pre_fault_memory now = { .gpa = next->gpa, .size = size };
        int ret = size ? kvm_vcpu_ioctl(cpu, KVM_PRE_FAULT_MEMORY, &now) : 0;

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
            g_array_set_size(todo, todo->len - 1);
        }
    }
}

static void distribute(void *opaque)
{
    CPUState *cpu;

    if (!todo->len) {
        trace_kvm_guest_memfd_prefault(0, 0, 0);
        give_up();
        return;
    }
    CPU_FOREACH(cpu) {
        async_run_on_cpu(cpu, work, RUN_ON_CPU_NULL);
    }
    timer_mod(timer, qemu_clock_get_us(QEMU_CLOCK_VIRTUAL) + PAUSE_US);
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

static void begin(bool preallocated_only)
{
    RAMBlock *rb;

    if (!can || !kvm_gmem_zaps_slot_only()) {
        return;
    }
    give_up();
    todo = g_array_new(false, false, sizeof(struct kvm_pre_fault_memory));
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (rb->gmem && gmem_backend_id(rb) &&
            (is_preallocated(rb) || !preallocated_only)) {
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
        begin(!incoming);
    }
}

void kvm_gmem_prefault(void)
{
    begin(false);
}

void kvm_gmem_init_prefault(void)
{
    static bool initialized;

    if (!initialized) {
        initialized = true;
        can = kvm_vm_check_extension(kvm_state, KVM_CAP_PRE_FAULT_MEMORY) > 0;
        incoming = runstate_check(RUN_STATE_INMIGRATE);
        qemu_add_vm_change_state_handler(vm_state_changed, NULL);
    }
}
