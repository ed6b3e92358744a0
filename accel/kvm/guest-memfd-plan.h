/*
 * Which parts of a guest_memfd are bound to memslots, and what has to be done
 *
 * Pure functions, which ask neither KVM nor QEMU anything.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GUEST_MEMFD_PLAN_H
#define ACCEL_KVM_GUEST_MEMFD_PLAN_H

#include "qemu/interval-tree.h"
#include "exec/hwaddr.h"
#include "qapi/qapi-types-guest-memfd.h"

/**
 * gmem_grid: into which cells the RAM of a block is cut
 *
 * @size: of the block, in bytes
 * @max_slots: how many memslots KVM has for an address space
 *
 * A memslot never crosses a multiple of the grid, so that whoever touches the
 * edge of RAM, or wants a part of it logged, costs a cell and not all of it.
 * 128 MiB: KVM switches a cell of touched RAM in about 1 ms.  It doubles
 * where a block would need too many memslots.
 *
 * Returns: a power of two, in bytes
 */
uint64_t gmem_grid(uint64_t size, unsigned max_slots);

/**
 * gmem_cell_size: how far the cell reaches
 *
 * @gpa: guest physical address
 * @size: bytes that there are from there on, more than 0
 * @grid: what gmem_grid() says
 *
 * The first MiB is a cell of its own: PC firmware opens and closes parts of it.
 *
 * Returns: bytes from @gpa to the next multiple of @grid, @size at most
 */
uint64_t gmem_cell_size(hwaddr gpa, uint64_t size, uint64_t grid);

/**
 * GmemView: one cell of an address space, where the guest sees a file
 *
 * @file: identifies the file
 * @offset: first byte of the file that is seen
 * @size: in bytes, more than 0
 * @gpa: guest physical address
 * @whole: bytes of the section that the cell was cut from
 * @as_id: KVM address space; 0 is the main one, 1 is x86 SMM
 * @logged: somebody wants to know which pages the guest writes
 * @ahead: somebody will want to know that soon
 * @veto: the reason why this cannot be bound whatever the other views are
 *     (kvm-bind=off, another VM's file, ...); GUEST_MEMFD_SLOT_STATE_BOUND
 *     if there is none
 * @opaque: the caller's; views move when they are sorted
 * @state: set by gmem_plan(): bound, or the reason why not
 * @node: private to gmem_plan()
 */
typedef struct GmemView {
    const void *file;
    uint64_t offset;
    uint64_t size;
    hwaddr gpa;
    uint64_t whole;
    int as_id;
    bool logged;
    bool ahead;
    GuestMemfdSlotState veto;
    void *opaque;
    GuestMemfdSlotState state;
    IntervalTreeNode node;
} GmemView;

/**
 * gmem_plan: decide for each view whether it is bound
 *
 * @views: all views of all files in one address space, in any order; sorted
 *     on return by file, then by what they were cut from (largest first),
 *     then by address
 * @n: how many
 *
 * A pure function of the set of views: neither the order in which they
 * appeared nor what was bound before matters.
 */
void gmem_plan(GmemView *views, size_t n);

/**
 * gmem_flags: the flags that the memslot of a planned view has in KVM
 *
 * @view: after gmem_plan()
 */
uint32_t gmem_flags(const GmemView *view);

/**
 * GmemAction: what makes a memslot that KVM has into the one that is planned
 *
 * @GMEM_ACTION_NONE: it is as planned
 * @GMEM_ACTION_LOG: turn logging on or off, which KVM does to a live memslot
 * @GMEM_ACTION_SWITCH: delete it and make it anew, now
 * @GMEM_ACTION_SWITCH_LATER: the same, when there is time: until then it is
 *     correct as it is, only not the best
 */
typedef enum GmemAction {
    GMEM_ACTION_NONE,
    GMEM_ACTION_LOG,
    GMEM_ACTION_SWITCH,
    GMEM_ACTION_SWITCH_LATER,
} GmemAction;

/**
 * gmem_action: compare a memslot with its plan
 *
 * @flags: those that it has in KVM
 * @view: the same address, size and part of the file, planned
 */
GmemAction gmem_action(uint32_t flags, const GmemView *view);

#endif
