/*
 * Which views of a guest_memfd are bound to memslots
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GUEST_MEMFD_PLAN_H
#define ACCEL_KVM_GUEST_MEMFD_PLAN_H

#include "qemu/interval-tree.h"
#include "exec/hwaddr.h"
#include "qapi/qapi-types-guest-memfd.h"

/**
 * GuestMemfdView: one place of an address space where the guest sees a file
 *
 * @file: identifies the file
 * @offset: first byte of the file that is seen
 * @size: in bytes, more than 0
 * @gpa: guest physical address
 * @as_id: KVM address space; 0 is the main one, 1 is x86 SMM
 * @readonly: the guest must not write here
 * @logged: somebody wants to know which pages the guest writes
 * @veto: GUEST_MEMFD_SLOT_STATE_BOUND if the file may be bound, else the
 *     reason why no view of it can be (kvm-bind=off, another VM's file, ...)
 * @opaque: the caller's; views move when they are sorted
 * @state: set by guest_memfd_plan(): bound, or the reason why not
 * @node: private to guest_memfd_plan()
 */
typedef struct GuestMemfdView {
    const void *file;
    uint64_t offset;
    uint64_t size;
    hwaddr gpa;
    int as_id;
    bool readonly;
    bool logged;
    GuestMemfdSlotState veto;
    void *opaque;
    GuestMemfdSlotState state;
    IntervalTreeNode node;
} GuestMemfdView;

/**
 * guest_memfd_plan: decide for each view whether it is bound
 *
 * @views: all views of all files in one address space, in any order; sorted
 *     on return by file, then by size (largest first), then by address
 * @n: how many
 *
 * A pure function of the set of views: neither the order in which they
 * appeared nor what was bound before matters.
 */
void guest_memfd_plan(GuestMemfdView *views, size_t n);

#endif
