/*
 * Filling a guest's page tables with preallocated memory
 *
 * Preallocation provides the pages of the file.  Where KVM has two-dimensional
 * paging, the guest would still fault on each of them once:
 * KVM_PRE_FAULT_MEMORY does all of that in a few calls.  A vCPU has to make
 * them.  So each takes a share now and then, and the guest runs in between.
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

/* Guest memory that is still to be mapped; under the BQL */
static GArray *todo;
static QEMUTimer *timer;

static void give_up(void)
{
    g_clear_pointer(&todo, g_array_unref);
    g_clear_pointer(&timer, timer_free);
}

/* On a vCPU */
static void work(CPUState *cpu, run_on_cpu_data unused)
{
    int64_t end = g_get_monotonic_time() + WORK_US;

    while (todo && todo->len && g_get_monotonic_time() < end) {
        struct kvm_pre_fault_memory *next =
            &g_array_index(todo, struct kvm_pre_fault_memory, todo->len - 1);
        struct kvm_pre_fault_memory now = {
            .gpa = next->gpa, .size = MIN(next->size, CHUNK),
        };
        uint64_t size = now.size;
        int ret = kvm_vcpu_ioctl(cpu, KVM_PRE_FAULT_MEMORY, &now);

        /* KVM leaves in @now what it has not done */
        next->gpa += size - now.size;
        next->size -= size - now.size;
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

static void vm_state_changed(void *opaque, bool running, RunState state)
{
    static bool done;
    RAMBlock *rb;

    if (!running || done || !kvm_gmem_zaps_slot_only()) {
        return;
    }
    done = true;
    todo = g_array_new(false, false, sizeof(struct kvm_pre_fault_memory));
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        if (rb->gmem && gmem_backend_id(rb) &&
            MEMORY_BACKEND(rb->mr->owner)->prealloc) {
            collect(rb);
        }
    }
    timer = timer_new_us(QEMU_CLOCK_VIRTUAL, distribute, NULL);
    distribute(NULL);
}

void kvm_gmem_init_prefault(void)
{
    static bool initialized;

    if (!initialized &&
        kvm_vm_check_extension(kvm_state, KVM_CAP_PRE_FAULT_MEMORY) > 0) {
        qemu_add_vm_change_state_handler(vm_state_changed, NULL);
    }
    initialized = true;
}
