/*
 * Filling a guest's page tables with the memory that is there
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GUEST_MEMFD_PREFAULT_H
#define ACCEL_KVM_GUEST_MEMFD_PREFAULT_H

/**
 * kvm_gmem_init_prefault: there is guest_memfd RAM
 *
 * When the VM runs for the first time, its vCPUs fill the page tables for what
 * is bound and preallocated or has come by migration, where KVM can do that.
 */
void kvm_gmem_init_prefault(void);

/**
 * kvm_gmem_prefault: memslots have been bound again, and lost their page tables
 *
 * The vCPUs fill them for the memory that is there.  Called with the BQL held,
 * when dirty logging has ended.
 */
void kvm_gmem_prefault(void);

#endif
