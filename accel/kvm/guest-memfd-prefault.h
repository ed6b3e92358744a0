/*
 * Filling a guest's page tables with preallocated memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GUEST_MEMFD_PREFAULT_H
#define ACCEL_KVM_GUEST_MEMFD_PREFAULT_H

/**
 * kvm_gmem_init_prefault: there is guest_memfd RAM
 *
 * When the VM runs for the first time, its vCPUs fill the page tables for what
 * is preallocated and bound, where KVM can do that.
 */
void kvm_gmem_init_prefault(void);

#endif
