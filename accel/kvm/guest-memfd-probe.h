/*
 * Does KVM serve guests well from bound memslots?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GUEST_MEMFD_PROBE_H
#define ACCEL_KVM_GUEST_MEMFD_PROBE_H

/**
 * kvm_arm_gmem_probe_execute: can a guest execute what it wrote?
 *
 * @errp: set if it hangs, or if that cannot be found out: what must not
 *     happen to a guest has to be proved, not assumed
 *
 * Takes milliseconds where it can; asks once.  In target/arm.
 *
 * Returns: true if a guest has done so
 */
bool kvm_arm_gmem_probe_execute(Error **errp);

static inline bool kvm_gmem_probe_execute(Error **errp)
{
#ifdef TARGET_AARCH64
    return kvm_arm_gmem_probe_execute(errp);
#else
    return true;
#endif
}

#endif
