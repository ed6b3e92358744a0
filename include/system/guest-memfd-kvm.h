/*
 * What accel/kvm does with guest_memfd RAM for the rest of QEMU; stubs are in
 * accel/stubs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_KVM_H
#define SYSTEM_GUEST_MEMFD_KVM_H

#include "exec/hwaddr.h"
#include "qapi/qapi-types-guest-memfd.h"
#include "system/guest-memfd.h"

/**
 * kvm_gmem_create: create a guest_memfd that the host can map
 *
 * @size: in bytes, a multiple of the host page size
 * @errp: set when KVM is not in use, lacks guest_memfd, cannot make it
 *     mappable for this VM (Linux < 6.18; SNP, TDX), or refuses
 *
 * Called with the BQL held, by memory backends.
 *
 * Returns: the file descriptor, close-on-exec, or -1.
 */
int kvm_gmem_create(uint64_t size, Error **errp);

/**
 * kvm_gmem_create_page: a guest_memfd of one host page, mapped, to try things
 *
 * @fd: set to the file descriptor
 *
 * Returns: the mapping, to be undone with the file by
 * kvm_gmem_destroy_page(); NULL if KVM or the host does not give it.
 */
void *kvm_gmem_create_page(int *fd);
void kvm_gmem_destroy_page(void *page, int fd);

/**
 * kvm_gmem_shadows_page_tables: has KVM no page tables of its own for a guest?
 *
 * On x86 without two-dimensional paging it makes them from the guest's.  Guest
 * page faults profit from the host mapping there, for KVM maps pages next to
 * one that the guest faults on, if they are in the host's page tables: also in
 * bound memslots (Linux, arch/x86/kvm/mmu/mmu.c:direct_pte_prefetch()).
 */
bool kvm_gmem_shadows_page_tables(void);

/**
 * kvm_gmem_drop_page_tables: the guest's memory is about to be replaced
 *
 * Where KVM shadows the guest's page tables, it does not see what QEMU writes
 * to them, and the guest would go on with pages that are not in them any more
 * (Linux, arch/x86/kvm/mmu/mmu.c:kvm_mmu_get_shadow_page() takes a page that
 * is there as it is).  Making the memslots anew drops all that KVM has.
 *
 * Called with the BQL held and the vCPUs stopped, before guest RAM is loaded.
 */
void kvm_gmem_drop_page_tables(void);

/**
 * kvm_gmem_init: there is guest_memfd RAM in this VM
 *
 * Called by memory backends that have created a file or taken one over; does
 * something the first time.
 */
void kvm_gmem_init(void);

/**
 * kvm_gmem_prepare_bind: find out whether binding can work on this kernel
 *
 * @gmem: @gmem->kvm_bind is set; @gmem->kernel_bug is set on return
 * @errp: set if kvm-bind=on, and this kernel would let guests hang, or it
 *     cannot be found out
 *
 * Called by memory backends when they have created the file.  With
 * kvm-bind=auto, all slots are then mapped, with one warning.
 *
 * Returns: true on success
 */
bool kvm_gmem_prepare_bind(Gmem *gmem, Error **errp);

/**
 * kvm_gmem_check_plug: would KVM take the memory of a device to be plugged?
 *
 * @rb: a RAMBlock with @rb->gmem
 * @gpa: guest physical address, where nothing else is
 * @errp: set if it has too few memslots left, or if it would not bind the
 *     memory and kvm-bind=on
 *
 * Returns: true if it would
 */
bool kvm_gmem_check_plug(RAMBlock *rb, hwaddr gpa, Error **errp);

/**
 * kvm_gmem_query_slots: the memslots that show a block to the guest
 *
 * @rb: a RAMBlock with @rb->gmem
 *
 * Called with the BQL held.
 *
 * Returns: the slots, ordered by address space and guest address; neighbours
 * that are alike are one.
 */
GuestMemfdSlotList *kvm_gmem_query_slots(RAMBlock *rb);

/**
 * kvm_gmem_logging_begins: all of RAM will be logged in a moment
 *
 * Switches bound memslots to the host mapping, in steps between which the
 * guest runs.  Called without the BQL; takes a few milliseconds for a GiB.
 */
void kvm_gmem_logging_begins(void);

/**
 * kvm_gmem_logging_ended: what kvm_gmem_logging_begins() told of is over
 *
 * Called with the BQL held, once for each kvm_gmem_logging_begins(), whether
 * the RAM was logged in the end or not.
 */
void kvm_gmem_logging_ended(void);

/**
 * kvm_gmem_lock_for_log: bql_lock() for those who change what is logged
 *
 * @begins: all of RAM will be logged, before the caller gives the BQL back
 *
 * Like kvm_gmem_logging_begins(), so that logging begins at once then.  Called
 * without the BQL, by what measures or limits the rate of dirty pages.
 */
void kvm_gmem_lock_for_log(bool begins);

#endif
