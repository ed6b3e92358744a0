/*
 * The border between kvm-all.c and guest_memfd RAM: what it calls of ours, and
 * what we call of its
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef ACCEL_KVM_GUEST_MEMFD_KVM_ALL_H
#define ACCEL_KVM_GUEST_MEMFD_KVM_ALL_H

#include "system/kvm_int.h"

/**
 * kvm_gmem_section: a section of an address space comes or goes
 *
 * Called by kvm_set_phys_mem(), which has no more to do if it is guest_memfd
 * RAM: kvm_gmem_commit() of this transaction sees to its memslots.
 *
 * Returns: true if it is guest_memfd RAM
 */
bool kvm_gmem_section(KVMMemoryListener *kml, MemoryRegionSection *section,
                      bool add);

/**
 * kvm_gmem_is_stale: is there something for kvm_gmem_commit() to do?
 */
bool kvm_gmem_is_stale(KVMMemoryListener *kml);

/**
 * kvm_gmem_commit: bring KVM's memslots in line with what the guest shall see
 *
 * @kml: one address space
 * @inhibited: the caller has already stopped all vCPU ioctls
 *
 * Compares, by content, what KVM has with what the sections ask for.  What is
 * the same stays registered, though its section may have gone and come back.
 *
 * Called by kvm_region_commit() with the BQL and the slots lock held, between
 * the last deletion and the first addition of other memslots: what goes has to
 * make room for them, and needs the room that they made.
 */
void kvm_gmem_commit(KVMMemoryListener *kml, bool inhibited);

/**
 * kvm_gmem_log_changed: dirty logging of a section starts or stops
 *
 * Called by kvm_section_update_flags().
 *
 * Returns: true if the section is guest_memfd RAM, whose memslots the
 * kvm_gmem_commit() of this transaction will see to.
 */
bool kvm_gmem_log_changed(KVMMemoryListener *kml, MemoryRegionSection *section);

/**
 * kvm_gmem_log_sync: fetch what the guest has written to a section
 *
 * Called by kvm_physical_sync_dirty_bitmap() with the slots lock held.
 *
 * Returns: true if the section is guest_memfd RAM; else nothing is done.
 */
bool kvm_gmem_log_sync(KVMMemoryListener *kml, MemoryRegionSection *section);

/**
 * kvm_gmem_fill_dirty: mark all pages of a memslot that KVM cannot log
 *
 * Called before the memslot's dirty bitmap is handed to QEMU.  Does nothing
 * unless KVM refused to log: then migration stays correct (whatever the guest
 * may have written is sent again), at the price of not converging before the
 * guest stops.
 */
void kvm_gmem_fill_dirty(KVMSlot *slot);

/**
 * kvm_gmem_has_cell: does a memslot of guest_memfd RAM begin at an address?
 *
 * Called by kvm_accel_has_memory(), so that "info mtree -f" knows RAM that has
 * been cut into cells.
 */
bool kvm_gmem_has_cell(KVMMemoryListener *kml, hwaddr gpa);

/**
 * kvm_gmem_handle_fault: a guest page fault that KVM could not serve
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
bool kvm_gmem_handle_fault(CPUState *cpu, int err, int *ret);

/* In kvm-all.c */

extern QemuMutex kml_slots_lock;

KVMSlot *kvm_get_free_slot(KVMMemoryListener *kml);
hwaddr kvm_align_section(MemoryRegionSection *section, hwaddr *start);
void kvm_slot_init_dirty_bitmap(KVMSlot *mem);
void kvm_slot_sync_dirty_pages(KVMSlot *slot);
bool kvm_slot_get_dirty_log(KVMState *s, KVMSlot *slot);
uint64_t kvm_dirty_ring_reap_locked(KVMState *s, CPUState *cpu);

#endif
