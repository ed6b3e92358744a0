/*
 * Which parts of a guest_memfd are bound to memslots, and what has to be done
 *
 * KVM's rules (Linux, virt/kvm/kvm_main.c:check_memory_region_flags() and
 * virt/kvm/guest_memfd.c:kvm_gmem_bind()): a bound slot can be neither
 * logged nor changed, and a page of the file can be bound once only.  What
 * cannot be bound is shown through the host mapping of the same file, which
 * is coherent with the bound slots.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qemu/units.h"
#include "guest-memfd-plan.h"

#define GRID_MIN        (128 * MiB)
/* QEMU looks a memslot up by walking through all of them */
#define CELLS_MAX       1024

uint64_t gmem_grid(uint64_t size, unsigned max_slots)
{
    /* Room for other blocks, which may be cut, too, and for devices */
    uint64_t cells = MIN(MAX(max_slots / 16, 1), CELLS_MAX);
    uint64_t grid = GRID_MIN;

    while (size / cells > grid && grid < 1ULL << 62) {
        grid *= 2;
    }
    return grid;
}

uint64_t gmem_cell_size(hwaddr gpa, uint64_t size, uint64_t grid)
{
    if (gpa < MiB) {
        grid = MiB;
    }
    return MIN(size, grid - (gpa & (grid - 1)));
}

static int compare_views(const void *a, const void *b)
{
    const GmemView *va = a, *vb = b;

    if (va->file != vb->file) {
        return va->file < vb->file ? -1 : 1;
    }
    if (va->whole != vb->whole) {
        return va->whole > vb->whole ? -1 : 1;
    }
    return va->gpa < vb->gpa ? -1 : va->gpa > vb->gpa;
}

static GuestMemfdSlotState plan_one(const GmemView *view,
                                    IntervalTreeRoot *bound)
{
    if (view->veto != GUEST_MEMFD_SLOT_STATE_BOUND) {
        return view->veto;
    }
    if (view->as_id != 0) {
        return GUEST_MEMFD_SLOT_STATE_ADDRESS_SPACE;
    }
    if (view->logged || view->ahead) {
        return GUEST_MEMFD_SLOT_STATE_DIRTY_LOG;
    }
    if (interval_tree_iter_first(bound, view->node.start, view->node.last)) {
        return GUEST_MEMFD_SLOT_STATE_ALIAS;
    }
    return GUEST_MEMFD_SLOT_STATE_BOUND;
}

void gmem_plan(GmemView *views, size_t n)
{
    IntervalTreeRoot bound = {};

    /*
     * Of views that overlap in the file, those of the largest section are
     * RAM proper and the others are aliases of a part of it (SMRAM, PAM, a
     * device's window).
     */
    if (n) {
        qsort(views, n, sizeof(*views), compare_views);
    }

    for (size_t i = 0; i < n; i++) {
        GmemView *view = &views[i];

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

uint32_t gmem_flags(const GmemView *view)
{
    return view->state == GUEST_MEMFD_SLOT_STATE_BOUND ? KVM_MEM_GUEST_MEMFD
         : view->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0;
}

GmemAction gmem_action(uint32_t flags, const GmemView *view)
{
    uint32_t planned = gmem_flags(view);

    if (flags == planned) {
        return GMEM_ACTION_NONE;
    }
    if (!((flags ^ planned) & KVM_MEM_GUEST_MEMFD)) {
        return GMEM_ACTION_LOG;
    }
    if (planned & KVM_MEM_GUEST_MEMFD) {
        /* Nobody reads its log any more: end that now, and bind it later */
        return flags & KVM_MEM_LOG_DIRTY_PAGES ? GMEM_ACTION_LOG
                                               : GMEM_ACTION_SWITCH_LATER;
    }
    return view->state == GUEST_MEMFD_SLOT_STATE_DIRTY_LOG && !view->logged
           ? GMEM_ACTION_SWITCH_LATER : GMEM_ACTION_SWITCH;
}
