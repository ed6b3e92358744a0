/*
 * Which views of a guest_memfd are bound to memslots
 *
 * KVM's rules (Linux, virt/kvm/kvm_main.c:check_memory_region_flags() and
 * virt/kvm/guest_memfd.c:kvm_gmem_bind()): a bound slot can be neither
 * logged nor read-only, and a page of the file can be bound once only.  What
 * cannot be bound is shown through the host mapping of the same file, which
 * is coherent with the bound slots.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd-plan.h"

static int compare_views(const void *a, const void *b)
{
    const GuestMemfdView *va = a, *vb = b;

    if (va->file != vb->file) {
        return va->file < vb->file ? -1 : 1;
    }
    if (va->size != vb->size) {
        return va->size > vb->size ? -1 : 1;
    }
    return va->gpa < vb->gpa ? -1 : va->gpa > vb->gpa;
}

static GuestMemfdSlotState plan_one(const GuestMemfdView *view,
                                    IntervalTreeRoot *bound)
{
    if (view->veto != GUEST_MEMFD_SLOT_STATE_BOUND) {
        return view->veto;
    }
    if (view->as_id != 0) {
        return GUEST_MEMFD_SLOT_STATE_ADDRESS_SPACE;
    }
    if (view->readonly) {
        return GUEST_MEMFD_SLOT_STATE_READONLY;
    }
    if (view->logged) {
        return GUEST_MEMFD_SLOT_STATE_DIRTY_LOG;
    }
    if (interval_tree_iter_first(bound, view->node.start, view->node.last)) {
        return GUEST_MEMFD_SLOT_STATE_ALIAS;
    }
    return GUEST_MEMFD_SLOT_STATE_BOUND;
}

void guest_memfd_plan(GuestMemfdView *views, size_t n)
{
    IntervalTreeRoot bound = {};

    /*
     * Of views that overlap in the file, the largest is RAM proper and the
     * others are aliases of a part of it (SMRAM, PAM, a device's window).
     */
    qsort(views, n, sizeof(*views), compare_views);

    for (size_t i = 0; i < n; i++) {
        GuestMemfdView *view = &views[i];

        if (i && view->file != views[i - 1].file) {
            bound = (IntervalTreeRoot) {};
        }
        view->node.start = view->offset;
        view->node.last = view->offset + view->size - 1;
        view->state = plan_one(view, &bound);
        if (view->state == GUEST_MEMFD_SLOT_STATE_BOUND) {
            interval_tree_insert(&view->node, &bound);
        }
    }
}
