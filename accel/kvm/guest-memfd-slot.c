/*
 * One memslot of guest_memfd RAM: what KVM is told of it
 *
 * To switch a memslot is to delete it and to make it anew, while no vCPU runs.
 * Whatever KVM refuses, the guest keeps a memslot if there is any that KVM
 * takes, and no write of the guest is lost: pages that may have been written
 * while nobody logged count as dirty.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/error.h"
#include "qapi/util.h"
#include "qemu/error-report.h"
#include "system/ramblock.h"
#include "hw/core/cpu.h"
#include "hw/qdev-core.h"
#include "system/cpus.h"
#include "system/guest-memfd-kvm.h"
#include "system/runstate.h"
#include "guest-memfd-kvm-all.h"
#include "guest-memfd-slot.h"
#include "trace.h"

static const char *slot_backend(const KVMSlot *slot)
{
    return gmem_backend_id(slot->gmem->mr->ram_block) ?: "(deleted)";
}

uint64_t gmem_slot_offset(const KVMSlot *slot)
{
    return (uint8_t *)slot->ram - slot->gmem->mr->ram_block->host;
}

static bool slot_is_bound(const KVMSlot *slot)
{
    return slot->old_flags & KVM_MEM_GUEST_MEMFD;
}

/*
 * Nothing is left to try.  Not vm_stop(): vCPUs may be waiting for us.  None
 * enters the guest any more, for which its memory may be gone, however late
 * the main loop comes to stop the VM.
 */
static void stop_vm(void)
{
    CPUState *cpu;

    if (!phase_check(PHASE_MACHINE_READY)) {
        exit(1);
    }
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
    CPU_FOREACH(cpu) {
        if (qemu_cpu_is_self(cpu)) {
            cpu_stop_current();
        } else {
            cpu_pause(cpu);
        }
    }
}

/*
 * Tell KVM of a slot; a @size of 0 deletes it.  Linux,
 * virt/kvm/kvm_main.c:kvm_set_memory_region(): -EINVAL for a second binding
 * of a page (-EEXIST since 7.2), -ENOMEM.
 */
static int set_region(KVMSlot *slot, uint32_t flags, uint64_t size)
{
    RAMBlock *rb = slot->gmem->mr->ram_block;
    struct kvm_userspace_memory_region2 region = {
        .slot = slot->slot | (slot->as_id << 16),
        .flags = flags,
        .guest_phys_addr = slot->start_addr,
        .memory_size = size,
        .userspace_addr = (uintptr_t)slot->ram,
        .guest_memfd = rb->fd,
        .guest_memfd_offset = gmem_slot_offset(slot),
    };
    int ret;

    /*
     * KVM's own accesses (emulation, page table walks) go through the host
     * mapping.  KVM does not check that it shows the range that is bound,
     * nor, before Linux 7.2, that offset + size does not overflow.
     */
    assert((uint8_t *)slot->ram >= rb->host && rb->fd_offset == 0);
    assert(region.guest_memfd_offset + size <= rb->max_length);

    ret = kvm_vm_ioctl(kvm_state, KVM_SET_USER_MEMORY_REGION2, &region);
    trace_kvm_set_user_memory(slot->as_id, slot->slot, flags,
                              region.guest_phys_addr, size,
                              region.userspace_addr, region.guest_memfd,
                              region.guest_memfd_offset, ret);
    return ret;
}

/* How often the VM has begun to run, whether it is stopped; under the BQL */
static unsigned int runs;
static bool stopped;

/* Called when all vCPUs have stopped, or before the first one runs */
static void vm_state_changed(void *opaque, bool running, RunState state)
{
    runs += running;
    stopped = !running;
}

void gmem_slot_init(void)
{
    qemu_add_vm_change_state_handler(vm_state_changed, NULL);
}

/*
 * Has the VM run since this was last asked of a slot that nobody logs?  If it
 * has been stopped all the time, nothing was written: a migration has to end.
 */
static bool ran_since_asked(KVMSlot *slot)
{
    if (stopped && slot->gmem->asked_stopped &&
        slot->gmem->asked_after_runs == runs) {
        return false;
    }
    slot->gmem->asked_stopped = stopped;
    slot->gmem->asked_after_runs = runs;
    return true;
}

/* All of it may have been written */
static void fill_dirty(KVMSlot *slot)
{
    bitmap_set(slot->dirty_bmap, 0,
               slot->memory_size / qemu_real_host_page_size());
}

static void mark_dirty(KVMSlot *slot)
{
    fill_dirty(slot);
    kvm_slot_sync_dirty_pages(slot);
    bitmap_clear(slot->dirty_bmap, 0,
                 slot->memory_size / qemu_real_host_page_size());
}

void gmem_slot_sync_dirty(KVMSlot *slot)
{
    if (kvm_slot_get_dirty_log(kvm_state, slot)) {
        kvm_slot_sync_dirty_pages(slot);
    } else if (ran_since_asked(slot)) {
        mark_dirty(slot);
    }
}

/* Fetch what the guest wrote until now; called while no vCPU runs */
static void harvest_dirty(KVMSlot *slot)
{
    if (slot->gmem->unlogged) {
        mark_dirty(slot);
    }
    if (!(slot->old_flags & slot->flags & KVM_MEM_LOG_DIRTY_PAGES)) {
        return;
    }
    if (kvm_state->kvm_dirty_ring_size) {
        /* Entries that name the slot must not outlive it */
        kvm_dirty_ring_reap_locked(kvm_state, NULL);
        kvm_slot_sync_dirty_pages(slot);
    }
    if (!kvm_state->kvm_dirty_ring_size ||
        kvm_state->kvm_dirty_ring_with_bitmap) {
        gmem_slot_sync_dirty(slot);
    }
}

/* KVM does not have the slot */
static void forget(KVMMemoryListener *kml, KVMSlot *slot)
{
    memory_region_unref(slot->gmem->mr);
    g_clear_pointer(&slot->gmem, g_free);
    g_clear_pointer(&slot->dirty_bmap, g_free);
    slot->memory_size = 0;
    slot->flags = slot->old_flags = 0;
    kml->nr_slots_used--;
}

/* Returns: 0 or a negative errno, and KVM still has the slot */
static int delete(KVMSlot *slot)
{
    int ret;

    harvest_dirty(slot);
    ret = set_region(slot, 0, 0);
    if (ret < 0) {
        error_report_once("guest_memfd '%s': KVM cannot delete the memslot at"
                          " guest address 0x%" HWADDR_PRIx ": %s",
                          slot_backend(slot), slot->start_addr,
                          strerror(-ret));
        return ret;
    }
    if (slot_is_bound(slot)) {
        trace_kvm_guest_memfd_unbind(slot_backend(slot), slot->slot,
                                     slot->start_addr);
    }
    slot->old_flags = 0;
    return 0;
}

/* Do without, or end where the user wants nothing else */
static void give_up_binding(KVMSlot *slot, int err)
{
    Gmem *gmem = slot->gmem->mr->ram_block->gmem;
    g_autofree char *text =
        g_strdup_printf("guest_memfd '%s': KVM cannot bind the memslot at"
                        " guest address 0x%" HWADDR_PRIx ": %s",
                        slot_backend(slot), slot->start_addr,
                        strerror(-err));

    if (gmem->kvm_bind == ON_OFF_AUTO_ON &&
        !phase_check(PHASE_MACHINE_READY)) {
        error_report("%s; use kvm-bind=auto", text);
        exit(1);
    }
    if (!gmem->warned) {
        warn_report("%s; it is mapped instead", text);
        gmem->warned = true;
    }
    slot->gmem->refused = true;
}

/*
 * Show the rest of QEMU a slot that is logged if that is wanted.  What the
 * guest may have written before KVM logged it is dirty: all of it.
 */
static void show_logged(KVMSlot *slot, bool logged, bool was_logged)
{
    slot->flags = slot->old_flags | (logged ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    slot->gmem->unlogged = slot->flags != slot->old_flags;
    if (slot->gmem->unlogged) {
        warn_report_once("guest_memfd '%s': KVM cannot log the guest's writes"
                         " at guest address 0x%" HWADDR_PRIx "; all pages"
                         " there count as written, so that a migration ends"
                         " only when the guest is stopped",
                         slot_backend(slot), slot->start_addr);
    }
    if (logged) {
        slot->gmem->refused = false;     /* ask again when logging ends */
        kvm_slot_init_dirty_bitmap(slot);
        if (!was_logged) {
            mark_dirty(slot);
        }
    }
}

void gmem_slot_set_state(KVMSlot *slot, const GmemView *view)
{
    if (slot_is_bound(slot)) {
        slot->gmem->state = GUEST_MEMFD_SLOT_STATE_BOUND;
    } else if (view->state != GUEST_MEMFD_SLOT_STATE_BOUND) {
        slot->gmem->state = view->state;
    } else {
        slot->gmem->state = slot->gmem->refused
                            ? GUEST_MEMFD_SLOT_STATE_REFUSED
                            : GUEST_MEMFD_SLOT_STATE_SWITCHING;
    }
}

/*
 * Register a slot as planned or, where KVM refuses, with less: guest RAM that
 * is not bound or not logged is better than none, and a slot that was bound a
 * moment ago can be bound again.
 */
static bool register_slot(KVMSlot *slot, const GmemView *view)
{
    uint32_t log = view->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0;
    const uint32_t tries[] = {
        gmem_flags(view), log, 0, KVM_MEM_GUEST_MEMFD,
    };
    int ret = 0;

    for (int i = 0; i < ARRAY_SIZE(tries); i++) {
        ret = set_region(slot, tries[i], slot->memory_size);
        if (ret >= 0) {
            slot->old_flags = tries[i];
            break;
        }
        if (i == 0 && tries[i] & KVM_MEM_GUEST_MEMFD) {
            give_up_binding(slot, ret);
        }
    }
    if (ret < 0) {
        error_report("guest_memfd '%s': KVM refuses any memslot at guest"
                     " address 0x%" HWADDR_PRIx ": %s", slot_backend(slot),
                     slot->start_addr, strerror(-ret));
        return false;
    }
    show_logged(slot, view->logged, false);
    gmem_slot_set_state(slot, view);
    if (slot_is_bound(slot)) {
        trace_kvm_guest_memfd_bind(slot_backend(slot), slot->slot,
                                   slot->start_addr, slot->memory_size,
                                   gmem_slot_offset(slot));
    } else {
        trace_kvm_guest_memfd_map(slot_backend(slot), slot->slot,
                                  slot->start_addr, slot->memory_size,
                                  gmem_slot_offset(slot),
                                  GuestMemfdSlotState_str(slot->gmem->state));
    }
    return true;
}

/* Returns: a slot that KVM does not have yet, or NULL if there is none left */
static KVMSlot *new_slot(KVMMemoryListener *kml, MemoryRegion *mr, hwaddr gpa,
                         uint64_t offset, uint64_t size)
{
    KVMSlot *slot = kvm_get_free_slot(kml);

    if (!slot) {
        return NULL;
    }
    slot->as_id = kml->as_id;
    slot->start_addr = gpa;
    slot->memory_size = size;
    slot->ram = mr->ram_block->host + offset;
    slot->ram_start_offset = mr->ram_block->offset + offset;
    slot->guest_memfd = -1;
    slot->gmem = g_new0(KVMGmemSlot, 1);
    slot->gmem->mr = mr;
    memory_region_ref(mr);
    kml->nr_slots_used++;
    return slot;
}

bool gmem_slot_add(KVMMemoryListener *kml, const GmemView *view)
{
    MemoryRegion *mr = view->opaque;
    KVMSlot *slot = new_slot(kml, mr, view->gpa, view->offset, view->size);

    if (!slot) {
        error_report("guest_memfd '%s': KVM has no memslot left for guest"
                     " address 0x%" HWADDR_PRIx,
                     gmem_backend_id(mr->ram_block), view->gpa);
        stop_vm();
        return false;
    }
    if (!register_slot(slot, view)) {
        forget(kml, slot);
        stop_vm();
        return false;
    }
    return !slot->gmem->unlogged;
}

bool gmem_slot_remove(KVMMemoryListener *kml, KVMSlot *slot)
{
    /* Twice: memory for it may be short for a moment, and all depends on it */
    if (delete(slot) < 0 && delete(slot) < 0) {
        stop_vm();
        return false;
    }
    forget(kml, slot);
    return true;
}

bool gmem_slot_change_log(KVMSlot *slot, const GmemView *view)
{
    uint32_t log = view->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0;
    bool was_logged = slot->old_flags & KVM_MEM_LOG_DIRTY_PAGES;

    if (set_region(slot, log, slot->memory_size) >= 0) {
        slot->old_flags = log;
    }
    show_logged(slot, view->logged, was_logged);
    gmem_slot_set_state(slot, view);
    return slot->old_flags == log;
}

bool gmem_slot_switch(KVMMemoryListener *kml, KVMSlot *slot,
                      const GmemView *view)
{
    Gmem *gmem = slot->gmem->mr->ram_block->gmem;

    if (delete(slot) < 0) {
        show_logged(slot, view->logged, false);
        return false;
    }
    if (!register_slot(slot, view)) {
        forget(kml, slot);
        stop_vm();
        return false;
    }
    gmem->switches++;
    /* What KVM refused to bind is settled, until it is logged again */
    return slot->old_flags == gmem_flags(view) || slot->gmem->refused;
}

void kvm_gmem_fill_dirty(KVMSlot *slot)
{
    if (slot->gmem && slot->gmem->unlogged && ran_since_asked(slot)) {
        fill_dirty(slot);
    }
}

/* Register and delete the first cell */
static int try_bind(RAMBlock *rb, hwaddr gpa, uint64_t grid)
{
    KVMMemoryListener *kml = kvm_state->as[0].ml;
    KVMSlot *slot;
    int ret = -ENOSPC;

    qemu_mutex_lock(&kml_slots_lock);
    slot = new_slot(kml, rb->mr, gpa, 0,
                    gmem_cell_size(gpa, rb->used_length, grid));
    if (slot) {
        ret = set_region(slot, KVM_MEM_GUEST_MEMFD, slot->memory_size);
        slot->flags = slot->old_flags = ret >= 0 ? KVM_MEM_GUEST_MEMFD : 0;
        /* What KVM would not delete is as the plug, or a commit, wants it */
        if (ret < 0 || delete(slot) == 0) {
            forget(kml, slot);
        }
    }
    qemu_mutex_unlock(&kml_slots_lock);
    return ret;
}

bool kvm_gmem_check_plug(RAMBlock *rb, hwaddr gpa, Error **errp)
{
    uint64_t grid = gmem_grid(rb->max_length, kvm_get_max_memslots());
    uint64_t cells = DIV_ROUND_UP(gpa % grid + rb->used_length, grid);
    unsigned int left = kvm_get_free_memslots();
    int ret = 0;

    if (cells > left) {
        error_setg(errp, "memory backend '%s' needs %" PRIu64 " memslots of"
                   " KVM, which has %u left: use fewer or smaller backends",
                   gmem_backend_id(rb), cells, left);
        return false;
    }
    if (rb->gmem->kvm_bind == ON_OFF_AUTO_ON) {
        ret = try_bind(rb, gpa, grid);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "KVM cannot bind memory backend '%s' at"
                         " guest address 0x%" HWADDR_PRIx ", and its property"
                         " 'kvm-bind' is on: use kvm-bind=auto",
                         gmem_backend_id(rb), gpa);
    }
    return ret >= 0;
}
