/*
 * guest_memfd in a QEMU binary without KVM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "system/guest-memfd-kvm.h"

int kvm_gmem_create(uint64_t size, Error **errp)
{
    error_setg(errp, "guest_memfd needs KVM, which this QEMU is built without");
    return -1;
}

void kvm_gmem_init(void)
{
    g_assert_not_reached();
}

bool kvm_gmem_prepare_bind(Gmem *gmem, Error **errp)
{
    g_assert_not_reached();
}

void *kvm_gmem_create_page(int *fd)
{
    return NULL;
}

void kvm_gmem_destroy_page(void *page, int fd)
{
    g_assert_not_reached();
}

bool kvm_gmem_shadows_page_tables(void)
{
    return false;
}

bool kvm_gmem_check_plug(RAMBlock *rb, hwaddr gpa, Error **errp)
{
    g_assert_not_reached();
}

GuestMemfdSlotList *kvm_gmem_query_slots(RAMBlock *rb)
{
    return NULL;
}

void kvm_gmem_logging_begins(void)
{
}

void kvm_gmem_logging_ended(void)
{
}

void kvm_gmem_drop_page_tables(void)
{
}

void kvm_gmem_lock_for_log(bool begins)
{
    bql_lock();
}
