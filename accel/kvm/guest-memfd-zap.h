/*
 * What deleting a memslot costs an x86 guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GUEST_MEMFD_ZAP_H
#define ACCEL_KVM_GUEST_MEMFD_ZAP_H

#include "qom/object.h"

/**
 * kvm_gmem_init_zap: there is guest_memfd RAM
 *
 * When the machine is complete, have KVM drop the deleted memslot's page
 * tables only, unless the user or an assigned device forbids it.
 */
void kvm_gmem_init_zap(void);

/**
 * kvm_gmem_zaps_slot_only: do other memslots' page tables survive a deletion?
 */
bool kvm_gmem_zaps_slot_only(void);

/**
 * kvm_gmem_add_accel_property: add property slot-zap-all to a class
 *
 * @oc: the class of accelerator KVM
 */
void kvm_gmem_add_accel_property(ObjectClass *oc);

#endif
