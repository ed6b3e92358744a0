/*
 * RAM of an ordinary VM that is a KVM guest_memfd
 *
 * A memory backend creates the file host-mappable, maps it MAP_SHARED as the
 * memory of its RAMBlock, and marks the block with RAMBlock.gmem.  From then
 * on accel/kvm decides for each memslot of the block whether it is *bound*
 * (KVM_MEM_GUEST_MEMFD: guest faults are served from the file) or *mapped* (a
 * plain slot over the host mapping); the rules are in
 * accel/kvm/guest-memfd-plan.c.
 *
 * In names, gmem is this file.  guest_memfd, as in RAMBlock.guest_memfd, is
 * QEMU's name for another one: the private and unmappable memory of a
 * confidential guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_H
#define SYSTEM_GUEST_MEMFD_H

#include "qapi/qapi-types-common.h"

/**
 * Gmem: what QEMU knows of the guest_memfd of one memory backend
 *
 * @enable: property guest-memfd of memory-backend-memfd
 * @kvm_bind: property kvm-bind of memory-backend-guest-memfd: bind always,
 *     never, or where KVM allows it
 * @other_vm: the file was created by another VM (it came over CPR), so that
 *     this VM can map it, but never bind it
 * @kernel_bug: guests would hang in bound slots on this kernel, or it cannot
 *     be found out whether they would
 * @warned: the user has been told that KVM refused to bind, or that the
 *     machine's guest-memfd=on has no effect on this backend
 * @switches: slots that went from bound to mapped or back while the VM had
 *     them
 * @max_inhibit_us: longest time, in microseconds, for which vCPUs were kept
 *     out of KVM_RUN to switch slots of this file
 * @populated: up to where a migration has come in its first pass, in bytes
 * @come: ... on a target
 *
 * Part of HostMemoryBackend; RAMBlock.gmem points to it.  The block may live
 * for an RCU grace period longer, in which nobody looks.
 */
typedef struct Gmem {
    OnOffAuto enable;
    OnOffAuto kvm_bind;
    bool other_vm;
    bool kernel_bug;
    bool warned;
    uint64_t switches;
    uint64_t max_inhibit_us;
    uint64_t populated;
    uint64_t come;
} Gmem;

/**
 * gmem_backend_id: the id of the memory backend that a block belongs to
 *
 * @rb: a RAMBlock with @rb->gmem
 *
 * Returns: the id, or NULL if the backend has been deleted and its memory
 * waits for the end of an RCU grace period
 */
const char *gmem_backend_id(const RAMBlock *rb);

/**
 * gmem_prealloc_init: preallocate guest_memfd RAM in its own way
 *
 * From now on qemu_prealloc_mem() allocates the pages of a guest_memfd by
 * fallocate().  Called when the first one is created.
 */
void gmem_prealloc_init(void);

/**
 * gmem_check_numa_policy: warn once if the kernel ignores NUMA policies
 *
 * @id: the memory backend with a policy, for the message
 */
void gmem_check_numa_policy(const char *id);

#endif
