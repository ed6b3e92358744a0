/*
 * Memslots of RAM that is a guest_memfd
 *
 * kvm-all.c hands us every slot that shows such RAM.  We do not react to
 * single events: at the end of a memory transaction all slots of the address
 * space are planned anew (guest-memfd-plan.c), and those that KVM does not
 * have as planned are registered or switched.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/util.h"
#include "qemu/error-report.h"
#include "exec/ramblock.h"
#include "hw/qdev-core.h"
#include "system/accel-blocker.h"
#include "system/guest-memfd.h"
#include "system/kvm_int.h"
#include "system/runstate.h"
#include "guest-memfd-plan.h"
#include "trace.h"

static GuestMemfd *slot_gmem(KVMSlot *slot)
{
    return slot->gmem.mr->ram_block->gmem;
}

static const char *slot_backend(KVMSlot *slot)
{
    return memory_region_name(slot->gmem.mr);
}

static uint64_t slot_offset(KVMSlot *slot)
{
    return (uint8_t *)slot->ram - slot->gmem.mr->ram_block->host;
}

static bool slot_is_bound(KVMSlot *slot)
{
    return slot->gmem.registered && (slot->old_flags & KVM_MEM_GUEST_MEMFD);
}

/* A slot in use that shows guest_memfd RAM */
static bool slot_is_ours(KVMSlot *slot)
{
    return slot->memory_size && slot->gmem.mr;
}

/* Nothing is left to try; not vm_stop(), since vCPUs may be kept waiting */
static void stop_vm(void)
{
    if (!phase_check(PHASE_MACHINE_READY)) {
        exit(1);
    }
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
}

/*
 * Tell KVM of a slot; a @size of 0 deletes it.  Linux,
 * virt/kvm/kvm_main.c:kvm_set_memory_region(): -EINVAL for a second binding
 * of a page (-EEXIST since 7.2), -ENOMEM.
 */
static int slot_ioctl(KVMMemoryListener *kml, KVMSlot *slot, uint32_t flags,
                      uint64_t size)
{
    RAMBlock *rb = slot->gmem.mr->ram_block;
    struct kvm_userspace_memory_region2 region = {
        .slot = slot->slot | (kml->as_id << 16),
        .flags = flags,
        .guest_phys_addr = slot->start_addr,
        .memory_size = size,
        .userspace_addr = (uintptr_t)slot->ram,
        .guest_memfd = rb->fd,
        .guest_memfd_offset = slot_offset(slot),
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
    trace_kvm_set_user_memory(kml->as_id, slot->slot, flags,
                              region.guest_phys_addr, size,
                              region.userspace_addr, region.guest_memfd,
                              region.guest_memfd_offset, ret);
    return ret;
}

static int slot_delete(KVMMemoryListener *kml, KVMSlot *slot)
{
    int ret = slot_ioctl(kml, slot, 0, 0);

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
    slot->gmem.registered = false;
    return 0;
}

/* Fetch what the guest wrote until now; called while no vCPU runs */
static void slot_harvest_dirty(KVMSlot *slot)
{
    if (!(slot->old_flags & KVM_MEM_LOG_DIRTY_PAGES)) {
        return;
    }
    if (kvm_state->kvm_dirty_ring_size) {
        /* Entries that name the slot must not outlive it */
        kvm_dirty_ring_reap_locked(kvm_state, NULL);
        kvm_slot_sync_dirty_pages(slot);
    }
    if (!kvm_state->kvm_dirty_ring_size ||
        kvm_state->kvm_dirty_ring_with_bitmap) {
        if (kvm_slot_get_dirty_log(kvm_state, slot)) {
            kvm_slot_sync_dirty_pages(slot);
        }
    }
}

static uint32_t hva_flags(const GuestMemfdView *view)
{
    return (view->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0) |
           (view->readonly ? KVM_MEM_READONLY : 0);
}

static uint32_t planned_flags(const GuestMemfdView *view)
{
    return view->state == GUEST_MEMFD_SLOT_STATE_BOUND ? KVM_MEM_GUEST_MEMFD
                                                       : hva_flags(view);
}

/* KVM can change LOG_DIRTY_PAGES of a live HVA slot, and nothing else */
static bool needs_delete(const GuestMemfdView *view)
{
    KVMSlot *slot = view->opaque;

    return slot->gmem.registered &&
           ((slot->old_flags ^ planned_flags(view)) &
            ~KVM_MEM_LOG_DIRTY_PAGES);
}

static void slot_refused(KVMSlot *slot, int err)
{
    GuestMemfd *gmem = slot_gmem(slot);
    g_autofree char *text =
        g_strdup_printf("guest_memfd '%s': KVM cannot bind the memslot at"
                        " guest address 0x%" HWADDR_PRIx ": %s",
                        slot_backend(slot), slot->start_addr, strerror(-err));

    if (gmem->kvm_bind == ON_OFF_AUTO_ON &&
        !phase_check(PHASE_MACHINE_READY)) {
        error_report("%s; with kvm-bind=auto the host mapping would serve",
                     text);
        exit(1);
    }
    if (!gmem->warned) {
        warn_report("%s; using the host mapping instead", text);
        gmem->warned = true;
    }
    slot->gmem.refused = true;
}

/*
 * Register a slot as planned or, where KVM refuses, with less: guest RAM that
 * is not bound or not logged is better than none.  Without any slot the VM
 * cannot go on.
 */
static void slot_register(KVMMemoryListener *kml, const GuestMemfdView *view)
{
    KVMSlot *slot = view->opaque;
    const uint32_t tries[] = {
        planned_flags(view), hva_flags(view),
        hva_flags(view) & ~KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_GUEST_MEMFD,
    };
    bool planned_bound = view->state == GUEST_MEMFD_SLOT_STATE_BOUND;
    int i, ret = 0;

    for (i = 0; i < ARRAY_SIZE(tries); i++) {
        ret = slot_ioctl(kml, slot, tries[i], slot->memory_size);
        if (ret >= 0) {
            break;
        }
        if (i == 0 && planned_bound) {
            slot_refused(slot, ret);
        }
    }
    if (ret < 0) {
        error_report("guest_memfd '%s': KVM refuses any memslot at guest"
                     " address 0x%" HWADDR_PRIx ": %s", slot_backend(slot),
                     slot->start_addr, strerror(-ret));
        stop_vm();
        return;
    }

    slot->gmem.registered = true;
    slot->old_flags = tries[i];
    if (tries[i] & KVM_MEM_GUEST_MEMFD) {
        slot->gmem.state = GUEST_MEMFD_SLOT_STATE_BOUND;
        trace_kvm_guest_memfd_bind(slot_backend(slot), slot->slot,
                                   slot->start_addr, slot->memory_size,
                                   slot_offset(slot));
    } else {
        slot->gmem.state = planned_bound ? GUEST_MEMFD_SLOT_STATE_REFUSED
                                         : view->state;
        trace_kvm_guest_memfd_hva(slot_backend(slot), slot->slot,
                                  slot->start_addr, slot->memory_size,
                                  slot_offset(slot),
                                  GuestMemfdSlotState_str(slot->gmem.state));
    }
}

/* Show the rest of QEMU a slot that is logged if that is wanted */
static void slot_set_logged(KVMSlot *slot, bool logged)
{
    slot->flags = slot->old_flags | (logged ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    slot->gmem.unlogged = slot->flags != slot->old_flags;
    if (slot->gmem.unlogged) {
        warn_report_once("guest_memfd '%s': KVM cannot log the guest's writes"
                         " at guest address 0x%" HWADDR_PRIx "; all pages"
                         " there count as written until the guest stops",
                         slot_backend(slot), slot->start_addr);
    }
    if (logged) {
        slot->gmem.refused = false;     /* ask again when logging ends */
    }
    kvm_slot_init_dirty_bitmap(slot);
}

static GuestMemfdSlotState slot_veto(KVMSlot *slot)
{
    GuestMemfd *gmem = slot_gmem(slot);

    return gmem->kvm_bind == ON_OFF_AUTO_OFF ? GUEST_MEMFD_SLOT_STATE_DISABLED
         : gmem->other_vm ? GUEST_MEMFD_SLOT_STATE_OTHER_VM
         : gmem->kernel_bug ? GUEST_MEMFD_SLOT_STATE_KERNEL_BUG
         : slot->gmem.refused ? GUEST_MEMFD_SLOT_STATE_REFUSED
         : GUEST_MEMFD_SLOT_STATE_BOUND;
}

static GArray *plan_slots(KVMMemoryListener *kml)
{
    GArray *views = g_array_new(false, false, sizeof(GuestMemfdView));

    for (int i = 0; i < kml->nr_slots_allocated; i++) {
        KVMSlot *slot = &kml->slots[i];

        if (slot_is_ours(slot)) {
            GuestMemfdView view = {
                .file = slot->gmem.mr->ram_block,
                .offset = slot_offset(slot),
                .size = slot->memory_size,
                .gpa = slot->start_addr,
                .as_id = kml->as_id,
                .readonly = slot->gmem.readonly,
                .logged = memory_region_get_dirty_log_mask(slot->gmem.mr),
                .veto = slot_veto(slot),
                .opaque = slot,
            };

            g_array_append_val(views, view);
        }
    }
    guest_memfd_plan((GuestMemfdView *)views->data, views->len);
    return views;
}

void kvm_guest_memfd_commit(KVMMemoryListener *kml, bool inhibited)
{
    g_autoptr(GPtrArray) switched = g_ptr_array_new();
    g_autoptr(GArray) views = NULL;
    int64_t us = 0;
    bool window = false;

    if (!kml->gmem_stale) {
        return;
    }
    kml->gmem_stale = false;
    views = plan_slots(kml);

    for (guint i = 0; i < views->len; i++) {
        GuestMemfdView *view = &g_array_index(views, GuestMemfdView, i);

        if (needs_delete(view)) {
            g_ptr_array_add(switched, view);
        }
    }
    if (switched->len && !inhibited) {
        us = g_get_monotonic_time();
        window = true;
        accel_ioctl_inhibit_begin();
    }

    /* All deletions first: a page may move from one bound slot to another */
    for (guint i = 0; i < switched->len; i++) {
        GuestMemfdView *view = switched->pdata[i];

        slot_harvest_dirty(view->opaque);
        slot_delete(kml, view->opaque);
    }
    for (guint i = 0; i < views->len; i++) {
        GuestMemfdView *view = &g_array_index(views, GuestMemfdView, i);
        KVMSlot *slot = view->opaque;

        if (needs_delete(view)) {
            kml->gmem_stale = true;     /* KVM would not; try again later */
        } else if (!slot->gmem.registered ||
                   slot->old_flags != planned_flags(view)) {
            slot_register(kml, view);
        }
        slot_set_logged(slot, view->logged);
    }

    if (window) {
        accel_ioctl_inhibit_end();
        us = g_get_monotonic_time() - us;
    }
    for (guint i = 0; i < switched->len; i++) {
        GuestMemfdView *view = switched->pdata[i];
        GuestMemfd *gmem = slot_gmem(view->opaque);

        gmem->switches++;
        gmem->prefaulted = 0;
        gmem->max_inhibit_us = MAX(gmem->max_inhibit_us, us);
    }
    if (switched->len) {
        trace_kvm_guest_memfd_switch(kml->as_id, switched->len, us);
    }
}

void kvm_guest_memfd_adopt_slot(KVMSlot *slot, MemoryRegion *mr)
{
    slot->gmem = (KVMGuestMemfdSlot) {
        .mr = mr->ram_block->gmem ? mr : NULL,
        .readonly = slot->flags & KVM_MEM_READONLY,
    };
}

int kvm_guest_memfd_update_slot(KVMMemoryListener *kml, KVMSlot *slot)
{
    kml->gmem_stale = true;
    if (!slot->memory_size) {
        if (slot->gmem.registered && slot_delete(kml, slot) < 0) {
            stop_vm();
        }
        slot->gmem = (KVMGuestMemfdSlot) {};
    }
    return 0;
}

bool kvm_guest_memfd_log_changed(KVMMemoryListener *kml, MemoryRegion *mr)
{
    if (!mr->ram_block || !mr->ram_block->gmem) {
        return false;
    }
    kml->gmem_stale = true;
    return true;
}

void kvm_guest_memfd_fill_dirty(KVMSlot *slot)
{
    if (slot->gmem.unlogged) {
        bitmap_set(slot->dirty_bmap, 0,
                   slot->memory_size / qemu_real_host_page_size());
    }
}

GuestMemfdSlotList *kvm_guest_memfd_query_slots(RAMBlock *rb)
{
    GuestMemfdSlotList *list = NULL, **tail = &list;

    for (int as = 0; as < kvm_state->nr_as; as++) {
        KVMMemoryListener *kml = kvm_state->as[as].ml;

        for (int i = 0; kml && i < kml->nr_slots_allocated; i++) {
            KVMSlot *slot = &kml->slots[i];

            if (slot_is_ours(slot) && slot->gmem.mr->ram_block == rb) {
                GuestMemfdSlot *info = g_new0(GuestMemfdSlot, 1);

                info->address_space = kml->as_id;
                info->slot = slot->slot;
                info->gpa = slot->start_addr;
                info->size = slot->memory_size;
                info->offset = slot_offset(slot);
                info->state = slot->gmem.state;
                QAPI_LIST_APPEND(tail, info);
            }
        }
    }
    return list;
}
