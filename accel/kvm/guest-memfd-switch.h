/*
 * Switching memslots of guest_memfd RAM while the guest runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GUEST_MEMFD_SWITCH_H
#define ACCEL_KVM_GUEST_MEMFD_SWITCH_H

#include "system/kvm_int.h"

/**
 * kvm_gmem_logging_ahead: will all of RAM be logged soon?
 *
 * Then nothing is bound any more.  Called with the BQL held.
 */
bool kvm_gmem_logging_ahead(void);

/**
 * kvm_gmem_switch_later: there are memslots to switch when there is time
 *
 * They are switched in steps, while the VM runs; one that is stopped stays as
 * it is until it goes on.  Called with the BQL held.
 */
void kvm_gmem_switch_later(void);

#endif
