/*
 * guest_memfd RAM of one address space, for guest-memfd-switch.c; what
 * kvm-all.c calls is in guest-memfd-kvm-all.h
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GUEST_MEMFD_SPACE_H
#define ACCEL_KVM_GUEST_MEMFD_SPACE_H

#include "system/kvm_int.h"

/**
 * kvm_gmem_step: do a part of what can wait, in one short window
 *
 * @kml: one address space
 *
 * Called with the BQL held, by guest-memfd-switch.c.
 *
 * Returns: true if there is more to do
 */
bool kvm_gmem_step(KVMMemoryListener *kml);

/**
 * kvm_gmem_make_anew: delete each memslot and make it again, as planned
 *
 * @kml: one address space
 *
 * Called with the BQL held and the vCPUs stopped, by guest-memfd-switch.c.
 */
void kvm_gmem_make_anew(KVMMemoryListener *kml);

#endif
