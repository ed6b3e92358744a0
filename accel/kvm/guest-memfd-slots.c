/*
 * Memslots of RAM that is a guest_memfd
 *
 * kvm-all.c hands us every section that shows such RAM.  We do not react to
 * single events: at the end of a memory transaction all sections of the
 * address space are cut into cells and planned anew (guest-memfd-plan.c), and
 * what KVM has is compared with that.
 *
 * To switch a memslot is to delete it and to make it anew, in a window in
 * which no vCPU runs.  A window is short: if many memslots have to be
 * switched, there are several, and the guest runs in between.  What can wait
 * is left to guest-memfd-switch.c.  Every mixture is legal, since bound
 * memslots and those over the host mapping are coherent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/error.h"
#include "qapi/util.h"
#include "qemu/error-report.h"
#include "system/ramblock.h"
#include "hw/qdev-core.h"
#include "system/accel-blocker.h"
#include "system/guest-memfd.h"
#include "system/runstate.h"
#include "guest-memfd-plan.h"
#include "guest-memfd-slots.h"
#include "guest-memfd-switch.h"
#include "trace.h"

/* A window ends when it has taken that long, and the slot at work is done */
#define WINDOW_US 2000

/* A part of an address space that shows guest_memfd RAM */
typedef struct Section {
    MemoryRegion *mr;
    hwaddr gpa;
    uint64_t size;
    uint64_t offset;            /* in the file */
} Section;

/**
 * KVMGmemSpace: guest_memfd RAM in one address space; see KVMMemoryListener
 *
 * @sections: of type Section; each has a reference to its region
 * @stale: memslots may not be as planned
 */
typedef struct KVMGmemSpace {
    GArray *sections;
    bool stale;
} KVMGmemSpace;

/**
 * KVMGmemSlot: what we know of a memslot that KVM has; see KVMSlot
 *
 * @mr: RAM on a guest_memfd that the slot shows; a reference
 * @wanted: a section asks for it
 * @refused: KVM would not bind it; asked again after the next logging
 * @unlogged: dirty logging is wanted, and KVM would not log: every page of
 *     the slot counts as dirty at each synchronisation
 * @state: bound, or the reason why not
 */
typedef struct KVMGmemSlot {
    MemoryRegion *mr;
    bool wanted;
    bool refused;
    bool unlogged;
    GuestMemfdSlotState state;
} KVMGmemSlot;

static KVMGmemSpace *get_space(KVMMemoryListener *kml)
{
    if (!kml->gmem) {
        kml->gmem = g_new0(KVMGmemSpace, 1);
        kml->gmem->sections = g_array_new(false, false, sizeof(Section));
    }
    return kml->gmem;
}

static bool is_ours(MemoryRegion *mr)
{
    return mr->ram_block && mr->ram_block->gmem;
}

/* A slot in use that shows guest_memfd RAM */
static bool slot_is_ours(const KVMSlot *slot)
{
    return slot->gmem;
}

static const char *slot_backend(const KVMSlot *slot)
{
    return gmem_backend_id(slot->gmem->mr->ram_block) ?: "(deleted)";
}

static uint64_t slot_offset(const KVMSlot *slot)
{
    return (uint8_t *)slot->ram - slot->gmem->mr->ram_block->host;
}

static bool slot_is_bound(const KVMSlot *slot)
{
    return slot->old_flags & KVM_MEM_GUEST_MEMFD;
}

/* Nothing is left to try.  Not vm_stop(): vCPUs may be waiting for us */
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
static int slot_ioctl(KVMSlot *slot, uint32_t flags, uint64_t size)
{
    RAMBlock *rb = slot->gmem->mr->ram_block;
    struct kvm_userspace_memory_region2 region = {
        .slot = slot->slot | (slot->as_id << 16),
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
    trace_kvm_set_user_memory(slot->as_id, slot->slot, flags,
                              region.guest_phys_addr, size,
                              region.userspace_addr, region.guest_memfd,
                              region.guest_memfd_offset, ret);
    return ret;
}

static void mark_dirty(KVMSlot *slot)
{
    uint64_t pages = slot->memory_size / qemu_real_host_page_size();

    bitmap_set(slot->dirty_bmap, 0, pages);
    kvm_slot_sync_dirty_pages(slot);
    bitmap_clear(slot->dirty_bmap, 0, pages);
}

/* Fetch what the guest wrote until now; called while no vCPU runs */
static void slot_harvest_dirty(KVMSlot *slot)
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
        if (kvm_slot_get_dirty_log(kvm_state, slot)) {
            kvm_slot_sync_dirty_pages(slot);
        } else {
            mark_dirty(slot);
        }
    }
}

/* KVM does not have the slot any more */
static void slot_forget(KVMMemoryListener *kml, KVMSlot *slot)
{
    memory_region_unref(slot->gmem->mr);
    g_clear_pointer(&slot->gmem, g_free);
    g_clear_pointer(&slot->dirty_bmap, g_free);
    slot->memory_size = 0;
    slot->flags = slot->old_flags = 0;
    kml->nr_slots_used--;
}

static bool slot_delete(KVMSlot *slot)
{
    int ret;

    slot_harvest_dirty(slot);
    ret = slot_ioctl(slot, 0, 0);
    if (ret < 0) {
        error_report_once("guest_memfd '%s': KVM cannot delete the memslot at"
                          " guest address 0x%" HWADDR_PRIx ": %s",
                          slot_backend(slot), slot->start_addr,
                          strerror(-ret));
        return false;
    }
    if (slot_is_bound(slot)) {
        trace_kvm_guest_memfd_unbind(slot_backend(slot), slot->slot,
                                     slot->start_addr);
    }
    slot->old_flags = 0;
    return true;
}

static void report_refused(KVMSlot *slot, int err)
{
    Gmem *gmem = slot->gmem->mr->ram_block->gmem;
    g_autofree char *text =
        g_strdup_printf("guest_memfd '%s': KVM cannot bind the memslot at"
                        " guest address 0x%" HWADDR_PRIx ": %s",
                        slot_backend(slot), slot->start_addr, strerror(-err));

    if (gmem->kvm_bind == ON_OFF_AUTO_ON &&
        !phase_check(PHASE_MACHINE_READY)) {
        error_report("%s; kvm-bind=auto would use the host mapping instead",
                     text);
        exit(1);
    }
    if (!gmem->warned) {
        warn_report("%s; using the host mapping instead", text);
        gmem->warned = true;
    }
}

/*
 * Show the rest of QEMU a slot that is logged if that is wanted.  What the
 * guest may have written before KVM logged it is dirty: all of it.
 */
static void slot_set_logged(KVMSlot *slot, bool logged, bool was_logged)
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

static void slot_set_state(KVMSlot *slot, const GmemView *view)
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
static bool slot_register(KVMSlot *slot, const GmemView *view)
{
    uint32_t log = view->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0;
    const uint32_t tries[] = {
        gmem_flags(view), log, 0, KVM_MEM_GUEST_MEMFD,
    };
    int ret = 0;

    for (int i = 0; i < ARRAY_SIZE(tries); i++) {
        ret = slot_ioctl(slot, tries[i], slot->memory_size);
        if (ret >= 0) {
            slot->old_flags = tries[i];
            break;
        }
        if (i == 0 && tries[i] & KVM_MEM_GUEST_MEMFD) {
            report_refused(slot, ret);
            slot->gmem->refused = true;
        }
    }
    if (ret < 0) {
        error_report("guest_memfd '%s': KVM refuses any memslot at guest"
                     " address 0x%" HWADDR_PRIx ": %s", slot_backend(slot),
                     slot->start_addr, strerror(-ret));
        return false;
    }
    slot_set_logged(slot, view->logged, false);
    slot_set_state(slot, view);
    if (slot_is_bound(slot)) {
        trace_kvm_guest_memfd_bind(slot_backend(slot), slot->slot,
                                   slot->start_addr, slot->memory_size,
                                   slot_offset(slot));
    } else {
        trace_kvm_guest_memfd_map(slot_backend(slot), slot->slot,
                                  slot->start_addr, slot->memory_size,
                                  slot_offset(slot),
                                  GuestMemfdSlotState_str(slot->gmem->state));
    }
    return true;
}

static void slot_add(KVMMemoryListener *kml, const GmemView *view)
{
    const Section *section = view->opaque;
    KVMSlot *slot = kvm_get_free_slot(kml);

    if (!slot) {
        error_report("guest_memfd '%s': KVM has no memslot left for guest"
                     " address 0x%" HWADDR_PRIx,
                     memory_region_name(section->mr), view->gpa);
        stop_vm();
        return;
    }
    slot->as_id = kml->as_id;
    slot->start_addr = view->gpa;
    slot->memory_size = view->size;
    slot->ram = section->mr->ram_block->host + view->offset;
    slot->ram_start_offset = section->mr->ram_block->offset + view->offset;
    slot->guest_memfd = -1;
    slot->gmem = g_new0(KVMGmemSlot, 1);
    slot->gmem->mr = section->mr;
    slot->gmem->wanted = true;
    memory_region_ref(section->mr);
    kml->nr_slots_used++;
    if (!slot_register(slot, view)) {
        slot_forget(kml, slot);
        stop_vm();
    }
}

/* Logging of a slot begins or ends, and the slot stays */
static void slot_change_log(KVMSlot *slot, const GmemView *view)
{
    uint32_t log = view->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0;
    bool was_logged = slot->old_flags & KVM_MEM_LOG_DIRTY_PAGES;

    if (slot_ioctl(slot, log, slot->memory_size) >= 0) {
        slot->old_flags = log;
    }
    slot_set_logged(slot, view->logged, was_logged);
    slot_set_state(slot, view);
}

/* Returns: false if KVM would not, and the slot is what it was */
static bool slot_switch(KVMMemoryListener *kml, KVMSlot *slot,
                        const GmemView *view)
{
    Gmem *gmem = slot->gmem->mr->ram_block->gmem;

    if (!slot_delete(slot)) {
        slot_set_logged(slot, view->logged, false);
        return false;
    }
    if (!slot_register(slot, view)) {
        slot_forget(kml, slot);
        stop_vm();
        return false;
    }
    gmem->switches++;
    return true;
}

/*
 * The plan
 */

static gpointer key(hwaddr gpa)
{
    return (gpointer)(uintptr_t)(gpa / qemu_real_host_page_size());
}

/* Our slots by guest address: their number, and 1 */
static GHashTable *slots_by_gpa(KVMMemoryListener *kml)
{
    GHashTable *by_gpa = g_hash_table_new(NULL, NULL);

    for (int i = 0; i < kml->nr_slots_allocated; i++) {
        if (slot_is_ours(&kml->slots[i])) {
            g_hash_table_insert(by_gpa, key(kml->slots[i].start_addr),
                                GINT_TO_POINTER(i + 1));
            kml->slots[i].gmem->wanted = false;
        }
    }
    return by_gpa;
}

/* The slot that shows just what a view is of, or NULL */
static KVMSlot *view_slot(KVMMemoryListener *kml, GHashTable *by_gpa,
                          const GmemView *view)
{
    const Section *section = view->opaque;
    int n = GPOINTER_TO_INT(g_hash_table_lookup(by_gpa, key(view->gpa)));
    KVMSlot *slot = n ? &kml->slots[n - 1] : NULL;

    return slot && slot_is_ours(slot) && slot->start_addr == view->gpa &&
           slot->memory_size == view->size && slot->gmem->mr == section->mr &&
           slot_offset(slot) == view->offset ? slot : NULL;
}

static GuestMemfdSlotState get_veto(const Gmem *gmem, const KVMSlot *slot)
{
    return gmem->kvm_bind == ON_OFF_AUTO_OFF ? GUEST_MEMFD_SLOT_STATE_DISABLED
         : gmem->other_vm ? GUEST_MEMFD_SLOT_STATE_OTHER_VM
         : gmem->kernel_bug ? GUEST_MEMFD_SLOT_STATE_KERNEL_BUG
         : slot && slot->gmem->refused ? GUEST_MEMFD_SLOT_STATE_REFUSED
         : GUEST_MEMFD_SLOT_STATE_BOUND;
}

static GArray *make_plan(KVMMemoryListener *kml, GHashTable *by_gpa)
{
    GArray *views = g_array_new(false, false, sizeof(GmemView));
    GArray *sections = kml->gmem->sections;

    for (guint i = 0; i < sections->len; i++) {
        Section *section = &g_array_index(sections, Section, i);
        RAMBlock *rb = section->mr->ram_block;
        uint64_t grid = gmem_grid(rb->max_length, kvm_get_max_memslots());
        uint64_t done = 0;

        while (done < section->size) {
            GmemView view = {
                .file = rb,
                .offset = section->offset + done,
                .size = gmem_cell_size(section->gpa + done,
                                       section->size - done, grid),
                .gpa = section->gpa + done,
                .whole = section->size,
                .as_id = kml->as_id,
                .logged = memory_region_get_dirty_log_mask(section->mr),
                .ahead = kvm_gmem_logging_ahead(),
                .opaque = section,
            };

            view.veto = get_veto(rb->gmem, view_slot(kml, by_gpa, &view));
            g_array_append_val(views, view);
            done += view.size;
        }
    }
    gmem_plan((GmemView *)views->data, views->len);
    return views;
}

/*
 * Switch @views from number @from on, in a window in which no vCPU runs.  If
 * the vCPUs are stopped anyway (@inhibited), all of them; else the window ends
 * when it has taken long enough.
 *
 * Returns: the number of the first that is left
 */
static guint switch_some(KVMMemoryListener *kml, GHashTable *by_gpa,
                         GPtrArray *views, guint from, bool inhibited)
{
    int64_t start = g_get_monotonic_time(), us;
    guint i = from;

    if (!inhibited) {
        accel_ioctl_inhibit_begin();
    }
    do {
        GmemView *view = views->pdata[i++];

        if (!slot_switch(kml, view_slot(kml, by_gpa, view), view)) {
            kml->gmem->stale = true;     /* the next transaction tries again */
        }
        us = g_get_monotonic_time() - start;
    } while (i < views->len && (inhibited || us < WINDOW_US));
    if (!inhibited) {
        accel_ioctl_inhibit_end();
        us = g_get_monotonic_time() - start;
    }

    for (guint j = from; j < i; j++) {
        const Section *section = ((GmemView *)views->pdata[j])->opaque;
        Gmem *gmem = section->mr->ram_block->gmem;

        gmem->max_inhibit_us = MAX(gmem->max_inhibit_us, us);
    }
    trace_kvm_guest_memfd_switch(kml->as_id, i - from, us);
    return i;
}

/* Slots that no section asks for any more */
static GArray *find_unwanted(KVMMemoryListener *kml)
{
    GArray *unwanted = g_array_new(false, false, sizeof(int));

    for (int i = 0; i < kml->nr_slots_allocated; i++) {
        if (slot_is_ours(&kml->slots[i]) && !kml->slots[i].gmem->wanted) {
            g_array_append_val(unwanted, i);
        }
    }
    return unwanted;
}

static void commit(KVMMemoryListener *kml, bool inhibited)
{
    g_autoptr(GHashTable) by_gpa = slots_by_gpa(kml);
    g_autoptr(GArray) plan = make_plan(kml, by_gpa);
    g_autoptr(GPtrArray) added = g_ptr_array_new();
    g_autoptr(GPtrArray) switched = g_ptr_array_new();
    g_autoptr(GPtrArray) relogged = g_ptr_array_new();
    g_autoptr(GArray) unwanted = NULL;
    bool later = false;

    for (guint i = 0; i < plan->len; i++) {
        GmemView *view = &g_array_index(plan, GmemView, i);
        KVMSlot *slot = view_slot(kml, by_gpa, view);

        if (!slot) {
            g_ptr_array_add(added, view);
            continue;
        }
        slot->gmem->wanted = true;
        slot_set_state(slot, view);
        switch (gmem_action(slot->old_flags, view)) {
        case GMEM_ACTION_LOG:
            g_ptr_array_add(relogged, view);
            later |= view->state == GUEST_MEMFD_SLOT_STATE_BOUND;
            break;
        case GMEM_ACTION_SWITCH:
            g_ptr_array_add(switched, view);
            break;
        case GMEM_ACTION_SWITCH_LATER:
            later = true;
            break;
        case GMEM_ACTION_NONE:
            break;
        }
    }
    unwanted = find_unwanted(kml);

    /*
     * First what goes, then what moves, then what comes: a slot's place, and
     * its part of the file, may be somebody else's next.
     */
    for (guint i = 0; i < unwanted->len; i++) {
        KVMSlot *slot = &kml->slots[g_array_index(unwanted, int, i)];

        if (slot_delete(slot)) {
            slot_forget(kml, slot);
        } else {
            kml->gmem->stale = true;
            stop_vm();
        }
    }
    for (guint i = 0; i < switched->len; ) {
        i = switch_some(kml, by_gpa, switched, i, inhibited);
    }
    for (guint i = 0; i < added->len; i++) {
        slot_add(kml, added->pdata[i]);
    }
    for (guint i = 0; i < relogged->len; i++) {
        slot_change_log(view_slot(kml, by_gpa, relogged->pdata[i]),
                        relogged->pdata[i]);
    }
    if (later) {
        kvm_gmem_switch_later();
    }
}

bool kvm_gmem_step(KVMMemoryListener *kml)
{
    g_autoptr(GHashTable) by_gpa = NULL;
    g_autoptr(GArray) plan = NULL;
    g_autoptr(GPtrArray) due = g_ptr_array_new();
    bool more = false;

    if (!kml->gmem) {
        return false;
    }
    qemu_mutex_lock(&kml_slots_lock);
    by_gpa = slots_by_gpa(kml);
    plan = make_plan(kml, by_gpa);
    for (guint i = 0; i < plan->len; i++) {
        GmemView *view = &g_array_index(plan, GmemView, i);
        KVMSlot *slot = view_slot(kml, by_gpa, view);
        GmemAction action = slot ? gmem_action(slot->old_flags, view)
                                 : GMEM_ACTION_NONE;

        /* KVM may have refused to end the log of a slot that is to be bound */
        if (action == GMEM_ACTION_SWITCH_LATER ||
            (action == GMEM_ACTION_LOG &&
             view->state == GUEST_MEMFD_SLOT_STATE_BOUND)) {
            g_ptr_array_add(due, view);
        }
    }
    if (due->len) {
        bool stale = kml->gmem->stale;

        kml->gmem->stale = false;
        more = switch_some(kml, by_gpa, due, 0, false) < due->len &&
               !kml->gmem->stale;
        kml->gmem->stale |= stale;
    }
    qemu_mutex_unlock(&kml_slots_lock);
    return more;
}

/*
 * What kvm-all.c calls
 */

/* As KVM sees it: whole pages */
static bool get_section(MemoryRegionSection *section, Section *s)
{
    s->mr = section->mr;
    s->size = kvm_align_section(section, &s->gpa);
    s->offset = section->offset_within_region + s->gpa -
                section->offset_within_address_space;
    return s->size;
}

static void add_section(KVMMemoryListener *kml, MemoryRegionSection *section)
{
    Section s;

    if (get_section(section, &s)) {
        memory_region_ref(s.mr);
        g_array_append_val(get_space(kml)->sections, s);
        kml->gmem->stale = true;
    }
}

static void remove_section(KVMMemoryListener *kml, MemoryRegionSection *section)
{
    GArray *sections = get_space(kml)->sections;
    Section gone;

    get_section(section, &gone);
    for (guint i = 0; i < sections->len; i++) {
        Section *s = &g_array_index(sections, Section, i);

        if (s->mr == gone.mr && s->gpa == gone.gpa) {
            memory_region_unref(s->mr);
            g_array_remove_index_fast(sections, i);
            kml->gmem->stale = true;
            return;
        }
    }
}

bool kvm_gmem_section(KVMMemoryListener *kml, MemoryRegionSection *section,
                      bool add)
{
    if (!is_ours(section->mr)) {
        return false;
    }
    if (!add) {
        remove_section(kml, section);
    }
    return true;
}

void kvm_gmem_commit(KVMMemoryListener *kml, bool inhibited)
{
    KVMMemoryUpdate *update;

    QSIMPLEQ_FOREACH(update, &kml->transaction_add, next) {
        if (is_ours(update->section.mr)) {
            add_section(kml, &update->section);
        }
    }
    if (kml->gmem && kml->gmem->stale) {
        kml->gmem->stale = false;
        commit(kml, inhibited);
    }
}

bool kvm_gmem_is_stale(KVMMemoryListener *kml)
{
    return kml->gmem && kml->gmem->stale;
}

bool kvm_gmem_log_changed(KVMMemoryListener *kml, MemoryRegionSection *section)
{
    if (!is_ours(section->mr)) {
        return false;
    }
    get_space(kml)->stale = true;
    return true;
}

bool kvm_gmem_log_sync(KVMMemoryListener *kml, MemoryRegionSection *section)
{
    hwaddr start = section->offset_within_address_space;
    hwaddr last = start + int128_get64(section->size) - 1;

    if (!is_ours(section->mr)) {
        return false;
    }
    for (int i = 0; i < kml->nr_slots_allocated; i++) {
        KVMSlot *slot = &kml->slots[i];

        if (slot_is_ours(slot) && slot->start_addr >= start &&
            slot->start_addr <= last &&
            slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
            if (kvm_slot_get_dirty_log(kvm_state, slot)) {
                kvm_slot_sync_dirty_pages(slot);
            } else {
                mark_dirty(slot);
            }
        }
    }
    return true;
}

void kvm_gmem_fill_dirty(KVMSlot *slot)
{
    if (slot->gmem && slot->gmem->unlogged) {
        bitmap_set(slot->dirty_bmap, 0,
                   slot->memory_size / qemu_real_host_page_size());
    }
}

bool kvm_gmem_try_bind(RAMBlock *rb, hwaddr gpa, Error **errp)
{
    KVMMemoryListener *kml = kvm_state->as[0].ml;
    KVMGmemSlot trial = { .mr = rb->mr };
    KVMSlot *slot;
    int ret = -ENOSPC;

    qemu_mutex_lock(&kml_slots_lock);
    slot = kvm_get_free_slot(kml);
    if (slot) {
        slot->start_addr = gpa;
        slot->as_id = kml->as_id;
        slot->ram = rb->host;
        slot->gmem = &trial;
        ret = slot_ioctl(slot, KVM_MEM_GUEST_MEMFD,
                         gmem_cell_size(gpa, rb->used_length,
                                        gmem_grid(rb->max_length,
                                                  kvm_get_max_memslots())));
        if (ret >= 0) {
            ret = slot_ioctl(slot, 0, 0);
        }
        slot->gmem = NULL;
    }
    qemu_mutex_unlock(&kml_slots_lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "KVM cannot bind memory backend '%s' at"
                         " guest address 0x%" HWADDR_PRIx ", and its property"
                         " 'kvm-bind' is on: use kvm-bind=auto",
                         gmem_backend_id(rb), gpa);
    }
    return ret >= 0;
}

/*
 * Queries
 */

static int compare_slots(const void *a, const void *b)
{
    const KVMSlot *sa = *(const KVMSlot **)a, *sb = *(const KVMSlot **)b;

    return sa->start_addr < sb->start_addr ? -1
         : sa->start_addr > sb->start_addr;
}

/* Neighbours of the same state are one to the user */
static bool continues(const GuestMemfdSlot *info, const KVMSlot *slot)
{
    return info && info->address_space == slot->as_id &&
           info->gpa + info->size == slot->start_addr &&
           info->offset + info->size == slot_offset(slot) &&
           info->state == slot->gmem->state;
}

GuestMemfdSlotList *kvm_gmem_query_slots(RAMBlock *rb)
{
    GuestMemfdSlotList *list = NULL, **tail = &list;

    /* QEMU 10.1 closes KVM when a VFIO device has gone to another process */
    if (!kvm_state) {
        return NULL;
    }
    for (int as = 0; as < kvm_state->nr_as; as++) {
        KVMMemoryListener *kml = kvm_state->as[as].ml;
        g_autoptr(GPtrArray) slots = g_ptr_array_new();
        GuestMemfdSlot *info = NULL;

        for (int i = 0; kml && i < kml->nr_slots_allocated; i++) {
            if (slot_is_ours(&kml->slots[i]) &&
                kml->slots[i].gmem->mr->ram_block == rb) {
                g_ptr_array_add(slots, &kml->slots[i]);
            }
        }
        g_ptr_array_sort(slots, compare_slots);
        for (guint i = 0; i < slots->len; i++) {
            const KVMSlot *slot = slots->pdata[i];

            if (!continues(info, slot)) {
                info = g_new0(GuestMemfdSlot, 1);
                info->address_space = as;
                info->gpa = slot->start_addr;
                info->offset = slot_offset(slot);
                info->state = slot->gmem->state;
                QAPI_LIST_APPEND(tail, info);
            }
            info->size += slot->memory_size;
            info->memslots++;
        }
    }
    return list;
}
