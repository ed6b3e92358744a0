/*
 * guest_memfd RAM of one address space: from its sections to memslots
 *
 * kvm-all.c hands us every section that shows such RAM.  We do not react to
 * single events: at the end of a memory transaction all sections are cut into
 * cells and planned anew (guest-memfd-plan.c), and what KVM has is compared
 * with that.
 *
 * Memslots are switched (guest-memfd-slot.c) in windows in which no vCPU runs.
 * A window is short: if many memslots have to be switched, there are several,
 * and the guest runs in between.  What can wait is left to
 * guest-memfd-switch.c.  Every mixture is legal, since bound memslots and those
 * over the host mapping are coherent.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/util.h"
#include "system/ramblock.h"
#include "system/accel-blocker.h"
#include "system/guest-memfd.h"
#include "guest-memfd-held.h"
#include "guest-memfd-kvm-all.h"
#include "guest-memfd-plan.h"
#include "guest-memfd-slot.h"
#include "guest-memfd-space.h"
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
 * @held: other memory that waits for a memslot of ours to go
 * @stale: memslots may not be as planned
 */
typedef struct KVMGmemSpace {
    GArray *sections;
    GPtrArray *held;
    bool stale;
} KVMGmemSpace;

static KVMGmemSpace *get_space(KVMMemoryListener *kml)
{
    if (!kml->gmem) {
        kml->gmem = g_new0(KVMGmemSpace, 1);
        kml->gmem->sections = g_array_new(false, false, sizeof(Section));
        kml->gmem->held = g_ptr_array_new();
    }
    return kml->gmem;
}

static bool is_ours(MemoryRegion *mr)
{
    return mr->ram_block && mr->ram_block->gmem;
}

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

    if (!get_section(section, &gone)) {
        return;
    }
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

static gpointer key(hwaddr gpa)
{
    return (gpointer)(uintptr_t)(gpa / qemu_real_host_page_size());
}

/*
 * Our slots by guest address (their number, and 1), for a plan: of none it is
 * known yet whether it is wanted
 */
static GHashTable *index_slots(KVMMemoryListener *kml)
{
    GHashTable *by_gpa = g_hash_table_new(NULL, NULL);

    for (int i = 0; i < kml->nr_slots_allocated; i++) {
        if (kml->slots[i].gmem) {
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
    int n = GPOINTER_TO_INT(g_hash_table_lookup(by_gpa, key(view->gpa)));
    KVMSlot *slot = n ? &kml->slots[n - 1] : NULL;

    return slot && slot->gmem && slot->start_addr == view->gpa &&
           slot->memory_size == view->size && slot->gmem->mr == view->opaque &&
           gmem_slot_offset(slot) == view->offset ? slot : NULL;
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
                .opaque = section->mr,
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

        if (!gmem_slot_switch(kml, view_slot(kml, by_gpa, view), view)) {
            kml->gmem->stale = true;     /* the next transaction tries again */
        }
        us = g_get_monotonic_time() - start;
    } while (i < views->len && (inhibited || us < WINDOW_US));
    if (!inhibited) {
        accel_ioctl_inhibit_end();
        us = g_get_monotonic_time() - start;
    }

    for (guint j = from; j < i; j++) {
        MemoryRegion *mr = ((GmemView *)views->pdata[j])->opaque;
        Gmem *gmem = mr->ram_block->gmem;

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
        if (kml->slots[i].gmem && !kml->slots[i].gmem->wanted) {
            g_array_append_val(unwanted, i);
        }
    }
    return unwanted;
}

static void commit(KVMMemoryListener *kml, bool inhibited)
{
    g_autoptr(GHashTable) by_gpa = index_slots(kml);
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
        gmem_slot_set_state(slot, view);
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

        if (!gmem_slot_remove(kml, slot)) {
            kml->gmem->stale = true;
            kvm_gmem_hold_back(kml, kml->gmem->held, slot);
        }
    }
    for (guint i = 0; i < switched->len; ) {
        i = switch_some(kml, by_gpa, switched, i, inhibited);
    }
    for (guint i = 0; i < added->len; i++) {
        if (!gmem_slot_add(kml, added->pdata[i])) {
            kml->gmem->stale = true;
        }
    }
    for (guint i = 0; i < relogged->len; i++) {
        GmemView *view = relogged->pdata[i];

        if (!gmem_slot_change_log(view_slot(kml, by_gpa, view), view)) {
            kml->gmem->stale = true;
        }
    }
    if (later) {
        kvm_gmem_switch_later();
    }
}

/*
 * What guest-memfd-switch.c and kvm-all.c call
 */

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
    by_gpa = index_slots(kml);
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

void kvm_gmem_make_anew(KVMMemoryListener *kml)
{
    g_autoptr(GHashTable) by_gpa = NULL;
    g_autoptr(GArray) plan = NULL;

    if (!kml->gmem) {
        return;
    }
    qemu_mutex_lock(&kml_slots_lock);
    by_gpa = index_slots(kml);
    plan = make_plan(kml, by_gpa);
    for (guint i = 0; i < plan->len; i++) {
        GmemView *view = &g_array_index(plan, GmemView, i);
        KVMSlot *slot = view_slot(kml, by_gpa, view);

        if (slot && !gmem_slot_switch(kml, slot, view)) {
            kml->gmem->stale = true;
        }
    }
    qemu_mutex_unlock(&kml_slots_lock);
}

bool kvm_gmem_section(KVMMemoryListener *kml, MemoryRegionSection *section,
                      bool add)
{
    if (!is_ours(section->mr)) {
        return !add && kml->gmem &&
               kvm_gmem_forget_held(kml->gmem->held, section);
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
        kvm_gmem_let_go(kml, kml->gmem->held);
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

        if (slot->gmem && slot->start_addr >= start &&
            slot->start_addr <= last &&
            slot->flags & KVM_MEM_LOG_DIRTY_PAGES) {
            gmem_slot_sync_dirty(slot);
        }
    }
    return true;
}
