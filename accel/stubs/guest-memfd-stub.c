/*
 * guest_memfd in a QEMU binary without KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "system/guest-memfd.h"

int kvm_guest_memfd_create(uint64_t size, Error **errp)
{
    error_setg(errp, "guest_memfd needs KVM, which this QEMU is built without");
    return -1;
}

bool kvm_guest_memfd_check_bind(GuestMemfd *gmem, Error **errp)
{
    g_assert_not_reached();
}

GuestMemfdSlotList *kvm_guest_memfd_query_slots(RAMBlock *rb)
{
    return NULL;
}
