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

#include "exec/hwaddr.h"
#include "qapi/qapi-types-common.h"
#include "qapi/qapi-types-guest-memfd.h"

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
} Gmem;

/* What is done with the file: system/ */

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

/* Which of its pages exist: system/guest-memfd-holes.c */

/* How many pages GmemHoles knows of */
#define GMEM_HOLES_PAGES 4096

/**
 * GmemHoles: which pages of a part of a block exist
 *
 * @rb: the block
 * @start: first byte of the part
 * @end: byte behind its last
 * @present: for each host page from @start on, whether it exists (bit 0)
 */
typedef struct GmemHoles {
    RAMBlock *rb;
    uint64_t start;
    uint64_t end;
    unsigned char present[GMEM_HOLES_PAGES];
} GmemHoles;

/**
 * gmem_holes_find: ask the kernel which pages of guest_memfd RAM exist
 *
 * @holes: set
 * @rb: a RAMBlock with @rb->gmem
 * @start: in bytes; rounded down to a host page
 * @end: in bytes; less is asked for if it is far
 *
 * mincore() on the host mapping also counts pages that only the guest has
 * touched.  It does not count those that are only preallocated, which read as
 * zeroes.  A process that may not ask (another user than the file's creator)
 * is told that all exist: whoever relies on the answer is slow then, never
 * wrong.  Costs 1.5 to 7 ms for a GiB.
 */
void gmem_holes_find(GmemHoles *holes, RAMBlock *rb, uint64_t start,
                     uint64_t end);

/**
 * gmem_holes_at: is a page a hole?
 *
 * @holes: after gmem_holes_find()
 * @offset: from @holes->start on, before @holes->end
 */
bool gmem_holes_at(const GmemHoles *holes, uint64_t offset);

/**
 * gmem_allocated: how much memory a block has
 *
 * @rb: a RAMBlock with @rb->gmem
 *
 * Returns: bytes, to the page
 */
uint64_t gmem_allocated(RAMBlock *rb);

/**
 * gmem_readable: read memory, but do not allocate it
 *
 * @host: in the host's mapping of any RAM
 * @size: in bytes, within a page
 *
 * For those who read all of RAM page by page, like dump-guest-memory: to read
 * a hole of a guest_memfd through the mapping is to fill it for good.
 *
 * Returns: @host, or zeroes if that is a hole of guest_memfd RAM
 */
const void *gmem_readable(const void *host, size_t size);

/**
 * gmem_physical_read: cpu_physical_memory_read() that does not allocate
 *
 * @addr: guest physical address
 * @buf: filled
 * @size: in bytes, a page at most
 */
void gmem_physical_read(hwaddr addr, void *buf, uint64_t size);

/* Interface to accel/kvm; stubs in accel/stubs */

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
