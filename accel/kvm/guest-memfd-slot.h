/*
 * One memslot of guest_memfd RAM; private to accel/kvm
 *
 * All functions are called with the BQL and the slots lock held.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GUEST_MEMFD_SLOT_H
#define ACCEL_KVM_GUEST_MEMFD_SLOT_H

#include "system/kvm_int.h"
#include "guest-memfd-plan.h"

/**
 * KVMGmemSlot: what we know of a memslot that KVM has; see KVMSlot
 *
 * @mr: RAM on a guest_memfd that the slot shows; a reference
 * @wanted: a section asks for it; for kvm_gmem_commit()
 * @refused: KVM would not bind it; asked again after the next logging
 * @unlogged: dirty logging is wanted, and KVM would not log: every page of
 *     the slot counts as dirty at each synchronisation
 * @asked_stopped: the VM was stopped when that was last asked for
 * @asked_after_runs: ... and had run so often
 * @state: bound, or the reason why not
 */
typedef struct KVMGmemSlot {
    MemoryRegion *mr;
    bool wanted;
    bool refused;
    bool unlogged;
    bool asked_stopped;
    unsigned int asked_after_runs;
    GuestMemfdSlotState state;
} KVMGmemSlot;

/**
 * gmem_slot_init: there will be such memslots
 */
void gmem_slot_init(void);

/**
 * gmem_slot_offset: where in the file a slot begins, in bytes
 */
uint64_t gmem_slot_offset(const KVMSlot *slot);

/**
 * gmem_slot_set_state: say of a slot that stays what it is now
 *
 * @view: what it is planned to be
 */
void gmem_slot_set_state(KVMSlot *slot, const GmemView *view);

/**
 * gmem_slot_add: give KVM the memslot of a planned view
 *
 * @view: its @opaque is the MemoryRegion that it shows
 *
 * Stops the VM if KVM takes no memslot there at all.
 *
 * Returns: false if it has to be tried again
 */
bool gmem_slot_add(KVMMemoryListener *kml, const GmemView *view);

/**
 * gmem_slot_change_log: begin or end the log of a slot that stays
 *
 * @view: the same address, size and part of the file, planned
 *
 * Returns: false if KVM would not: it has to be tried again
 */
bool gmem_slot_change_log(KVMSlot *slot, const GmemView *view);

/**
 * gmem_slot_switch: make a slot what is planned by deleting it first
 *
 * @view: the same address, size and part of the file, planned
 *
 * Called while no vCPU runs.
 *
 * Returns: false if it has to be tried again: KVM would not delete it, and the
 * slot is what it was; or it took another in its place than was planned; or it
 * took none, and the VM stops
 */
bool gmem_slot_switch(KVMMemoryListener *kml, KVMSlot *slot,
                      const GmemView *view);

/**
 * gmem_slot_remove: take a slot from KVM that nobody wants any more
 *
 * Stops the VM if KVM keeps it: what is shown there next would not be seen.
 *
 * Returns: false if KVM keeps it
 */
bool gmem_slot_remove(KVMMemoryListener *kml, KVMSlot *slot);

/**
 * gmem_slot_sync_dirty: fetch what the guest has written to a logged slot
 *
 * All of it counts as written if KVM does not tell.
 */
void gmem_slot_sync_dirty(KVMSlot *slot);

#endif
