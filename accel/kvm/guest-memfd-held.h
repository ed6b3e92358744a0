/*
 * Memslots of other memory that wait for one that KVM will not delete
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GUEST_MEMFD_HELD_H
#define ACCEL_KVM_GUEST_MEMFD_HELD_H

#include "system/kvm_int.h"

/**
 * kvm_gmem_hold_back: take what needs the place of a memslot off the list of
 * memory to be added
 *
 * @kml: one address space, in whose commit this is called
 * @held: of type KVMMemoryUpdate *; gets what is taken off
 * @slot: one that KVM has, and should not have
 *
 * kvm-all.c aborts when KVM refuses memory.  The VM is stopped because of
 * @slot anyway, but what its guest has in its memory need not be lost.
 */
void kvm_gmem_hold_back(KVMMemoryListener *kml, GPtrArray *held,
                        const KVMSlot *slot);

/**
 * kvm_gmem_let_go: put all of it on the list again
 */
void kvm_gmem_let_go(KVMMemoryListener *kml, GPtrArray *held);

/**
 * kvm_gmem_forget_held: memory goes, perhaps before it came
 *
 * Returns: true if the section was held back, so that KVM does not have it
 */
bool kvm_gmem_forget_held(GPtrArray *held, const MemoryRegionSection *section);

#endif
