/*
 * RAM of an ordinary VM that is a KVM guest_memfd
 *
 * A memory backend creates the file host-mappable, maps it MAP_SHARED as the
 * memory of its RAMBlock, and marks the block with RAMBlock.gmem.  From then
 * on accel/kvm decides for each memslot of the block whether it is *bound*
 * (KVM_MEM_GUEST_MEMFD: guest faults are served from the file) or a plain
 * slot over the host mapping (*HVA slot*); the rules are in
 * accel/kvm/guest-memfd-plan.c.
 *
 * Not to be confused with RAMBlock.guest_memfd, the second, private and
 * unmappable file behind the RAM of a confidential guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_GUEST_MEMFD_H
#define SYSTEM_GUEST_MEMFD_H

#include "exec/hwaddr.h"
#include "qapi/qapi-types-common.h"
#include "qapi/qapi-types-guest-memfd.h"
#include "qapi/qapi-types-migration.h"

#define TYPE_MEMORY_BACKEND_GUEST_MEMFD "memory-backend-guest-memfd"

/**
 * GuestMemfd: what QEMU knows of the guest_memfd of one memory backend
 *
 * @enable: property guest-memfd of memory-backend-memfd
 * @kvm_bind: property kvm-bind of memory-backend-guest-memfd: bind always,
 *     never, or where KVM allows it
 * @other_vm: the file was created by another VM (it came over CPR), so that
 *     this VM can map it, but never bind it
 * @kernel_bug: guests would hang in bound slots on this kernel
 * @warned: the user has been told that KVM refused to bind
 * @prefaulted: target pages up to this one that migration has made present
 *     in the host mapping, as far as they are sent, since the last switch
 * @switches: slots that went from bound to HVA or back while registered
 * @max_inhibit_us: longest time, in microseconds, for which vCPUs were kept
 *     out of KVM_RUN to switch slots of this file
 *
 * Embedded in HostMemoryBackend, which outlives the RAMBlock that points to it.
 */
typedef struct GuestMemfd {
    OnOffAuto enable;
    OnOffAuto kvm_bind;
    bool other_vm;
    bool kernel_bug;
    bool warned;
    unsigned long prefaulted;
    uint64_t switches;
    uint64_t max_inhibit_us;
} GuestMemfd;

/**
 * guest_memfd_backend_alloc: give a memory backend a guest_memfd as its RAM
 *
 * @backend: the backend, with all properties set and no memory yet
 * @errp: set with a sentence that names the property or the missing kernel
 *     feature, and the remedy
 *
 * The alloc method of memory-backend-guest-memfd; called by that of
 * memory-backend-memfd where guest_memfd_backend_wanted().
 *
 * Returns: true on success.
 */
bool guest_memfd_backend_alloc(HostMemoryBackend *backend, Error **errp);

/**
 * guest_memfd_backend_wanted: shall a memory-backend-memfd be a guest_memfd?
 *
 * @backend: the backend, with all properties set and no memory yet
 * @hugetlb: the backend's property of that name
 * @wanted: set to the answer
 * @errp: set if the properties contradict each other
 *
 * Called by the alloc method of memory-backend-memfd.
 *
 * Returns: true on success.
 */
bool guest_memfd_backend_wanted(HostMemoryBackend *backend, bool hugetlb,
                                bool *wanted, Error **errp);

/**
 * guest_memfd_backend_add_property: add property guest-memfd to a class
 *
 * @oc: the class of memory-backend-memfd
 */
void guest_memfd_backend_add_property(ObjectClass *oc);

/**
 * guest_memfd_machine_add_property: add property guest-memfd to a class
 *
 * @oc: the class of machines
 */
void guest_memfd_machine_add_property(ObjectClass *oc);

/**
 * guest_memfd_machine_memdev_type: QOM type of a machine's default RAM
 *
 * @ms: the machine
 * @path: the argument of -mem-path, or NULL
 * @errp: set if @path contradicts -machine guest-memfd=on
 *
 * Called by create_default_memdev().
 *
 * Returns: the type, or NULL on error
 */
const char *guest_memfd_machine_memdev_type(MachineState *ms, const char *path,
                                            Error **errp);

/**
 * guest_memfd_prealloc_init: preallocate guest_memfd RAM in its own way
 *
 * From now on qemu_prealloc_mem() allocates the pages of a guest_memfd by
 * fallocate().  Called when the first one is created.
 */
void guest_memfd_prealloc_init(void);

/**
 * guest_memfd_prefault: fill the host mapping before migration reads it
 *
 * @rb: a RAMBlock; nothing is done unless it is a guest_memfd
 * @page: the target page that is sent next; it and those after it that are
 *     to be sent (set in @rb->bmap) are made present, 16 MiB at most
 *
 * Called on the migration thread for each page.  Does anything only in the
 * first pass after a switch of memslots.
 */
void guest_memfd_prefault(RAMBlock *rb, unsigned long page);

/**
 * guest_memfd_check_numa_policy: warn once if the kernel ignores NUMA policies
 *
 * @id: the memory backend with a policy, for the message
 */
void guest_memfd_check_numa_policy(const char *id);

/**
 * guest_memfd_check_userfault: can userfaultfd do its work on a RAMBlock?
 *
 * @rb: a RAMBlock with @rb->gmem
 * @cap: MIGRATION_CAPABILITY_POSTCOPY_RAM or _BACKGROUND_SNAPSHOT
 * @errp: set with a sentence that names the capability, the backend and the
 *     remedy
 *
 * Called when a destination prepares for postcopy.
 *
 * Returns: true if it can
 */
bool guest_memfd_check_userfault(RAMBlock *rb, MigrationCapability cap,
                                 Error **errp);

/**
 * guest_memfd_check_migration: refuse migration capabilities that cannot work
 *
 * @caps: the migration capabilities to be set, indexed by MigrationCapability
 * @errp: as for guest_memfd_check_userfault()
 *
 * Called by migrate_caps_check(), on the source and on the destination.
 *
 * Returns: true if all guest_memfd RAM can do what @caps need
 */
bool guest_memfd_check_migration(const bool *caps, Error **errp);

/* Interface to accel/kvm/guest-memfd.c; stubs in accel/stubs */

/**
 * kvm_guest_memfd_create: create a guest_memfd that the host can map
 *
 * @size: in bytes, a multiple of the host page size
 * @errp: set when KVM is not in use, lacks guest_memfd, cannot make it
 *     mappable for this VM (Linux < 6.18; SNP, TDX), or refuses
 *
 * Called with the BQL held, by memory backends.
 *
 * Returns: the file descriptor, close-on-exec, or -1.
 */
int kvm_guest_memfd_create(uint64_t size, Error **errp);

/**
 * kvm_guest_memfd_check_bind: find out before use whether binding can work
 *
 * @gmem: @gmem->kvm_bind is set; @gmem->kernel_bug is set on return
 * @errp: set if kvm-bind=on, and this kernel would let guests hang
 *
 * Called by memory backends when the file has been created.  With
 * kvm-bind=auto, a kernel with the bug makes all slots HVA slots, with one
 * warning.
 *
 * Returns: true on success
 */
bool kvm_guest_memfd_check_bind(GuestMemfd *gmem, Error **errp);

/**
 * kvm_arm_guest_memfd_hangs: does this kernel have the arm64 execute bug?
 *
 * Takes milliseconds on a kernel that does not; asks once.
 *
 * Returns: true if a guest that executes what it wrote would hang
 */
bool kvm_arm_guest_memfd_hangs(void);

/**
 * kvm_guest_memfd_query_slots: the memslots that show a block to the guest
 *
 * @rb: a RAMBlock with @rb->gmem
 *
 * Called with the BQL held.
 *
 * Returns: the slots, ordered by address space and slot number.
 */
GuestMemfdSlotList *kvm_guest_memfd_query_slots(RAMBlock *rb);

/* Interface to accel/kvm/kvm-all.c */

struct KVMMemoryListener;
struct KVMSlot;

/**
 * KVMGuestMemfdSlot: what a KVMSlot is to us; embedded there
 *
 * @mr: RAM on a guest_memfd that the slot shows; NULL for any other slot
 * @readonly: the guest cannot write here
 * @registered: KVM has the slot, with the flags in KVMSlot.old_flags
 * @refused: KVM would not bind the slot; asked again after the next logging
 * @unlogged: dirty logging is wanted, and KVM would not log: every page of
 *     the slot counts as dirty at each synchronisation
 * @state: bound, or the reason why not
 */
typedef struct KVMGuestMemfdSlot {
    MemoryRegion *mr;
    bool readonly;
    bool registered;
    bool refused;
    bool unlogged;
    GuestMemfdSlotState state;
} KVMGuestMemfdSlot;

/**
 * kvm_guest_memfd_adopt_slot: note whether a new slot shows guest_memfd RAM
 *
 * @slot: not registered with KVM yet
 * @mr: the RAM that the slot shows
 *
 * Called by kvm_set_phys_mem() for every new slot.  Sets @slot->gmem.mr if the
 * slot is to be ours.
 */
void kvm_guest_memfd_adopt_slot(struct KVMSlot *slot, MemoryRegion *mr);

/**
 * kvm_guest_memfd_update_slot: one of our slots comes or goes
 *
 * @kml: the address space
 * @slot: a slot with @slot->gmem.mr; its memory_size is 0 if it goes
 *
 * Called by kvm_set_user_memory_region() instead of its own work.  A slot that
 * goes is deleted here, its last dirty bits having been fetched; a VM whose
 * slot KVM would not delete is stopped (internal-error), never aborted.  A new
 * slot is left to the kvm_guest_memfd_commit() of this transaction.
 *
 * Returns: 0
 */
int kvm_guest_memfd_update_slot(struct KVMMemoryListener *kml,
                                struct KVMSlot *slot);

/**
 * kvm_guest_memfd_log_changed: dirty logging of a region starts or stops
 *
 * Called by kvm_section_update_flags().
 *
 * Returns: true if the region is guest_memfd RAM, whose slots the
 * kvm_guest_memfd_commit() of this transaction will switch together.
 */
bool kvm_guest_memfd_log_changed(struct KVMMemoryListener *kml,
                                 MemoryRegion *mr);

/**
 * kvm_guest_memfd_commit: bring KVM's slots in line with the plan
 *
 * @kml: one address space
 * @inhibited: the caller has already stopped all vCPU ioctls
 *
 * Plans all slots of guest_memfd RAM of the address space anew, registers the
 * new ones, and switches those whose plan changed: all of them inside one
 * accel_ioctl_inhibit window, since KVM cannot change a bound slot, only
 * delete and create it, and no vCPU may see the gap.
 *
 * Called by kvm_region_commit() with the BQL and the slots lock held.
 */
void kvm_guest_memfd_commit(struct KVMMemoryListener *kml, bool inhibited);

/**
 * kvm_guest_memfd_fill_dirty: mark all pages of a slot that KVM cannot log
 *
 * Called before the slot's dirty bitmap is handed to QEMU.  Does nothing
 * unless a switch to a logged slot failed: then migration stays correct
 * (whatever the guest may have written is sent again), at the price of not
 * converging before the guest stops.
 */
void kvm_guest_memfd_fill_dirty(struct KVMSlot *slot);

/**
 * kvm_guest_memfd_handle_fault: a guest page fault that KVM could not serve
 *
 * @cpu: the vCPU, which left with KVM_EXIT_MEMORY_FAULT
 * @err: what KVM_RUN returned, -EFAULT, -EHWPOISON or -ENOMEM
 * @ret: set to what kvm_cpu_exec() shall return: 0 if the guest has been told
 *     of the lost page, -1 to stop the VM (internal-error)
 *
 * Called by kvm_cpu_exec() on the vCPU's thread, without the BQL.
 *
 * Returns: true if the fault was in guest_memfd RAM; else nothing is done
 */
bool kvm_guest_memfd_handle_fault(CPUState *cpu, int err, int *ret);

#endif
