/*
 * Memslots of other memory that wait for one that KVM will not delete
 *
 * A section that is held back counts as added: it has the reference to its
 * region that kvm_region_commit() would have taken.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/range.h"
#include "system/ramblock.h"
#include "guest-memfd-held.h"

void kvm_gmem_hold_back(KVMMemoryListener *kml, GPtrArray *held,
                        const KVMSlot *slot)
{
    KVMMemoryUpdate *update, *next;

    QSIMPLEQ_FOREACH_SAFE(update, &kml->transaction_add, next, next) {
        MemoryRegionSection *section = &update->section;

        if (!section->mr->ram_block || section->mr->ram_block->gmem ||
            !ranges_overlap(section->offset_within_address_space,
                            int128_get64(section->size), slot->start_addr,
                            slot->memory_size)) {
            continue;
        }
        QSIMPLEQ_REMOVE(&kml->transaction_add, update, KVMMemoryUpdate, next);
        memory_region_ref(section->mr);
        g_ptr_array_add(held, update);
    }
}

void kvm_gmem_let_go(KVMMemoryListener *kml, GPtrArray *held)
{
    for (guint i = 0; i < held->len; i++) {
        KVMMemoryUpdate *update = held->pdata[i];

        QSIMPLEQ_INSERT_TAIL(&kml->transaction_add, update, next);
        memory_region_unref(update->section.mr);
    }
    g_ptr_array_set_size(held, 0);
}

bool kvm_gmem_forget_held(GPtrArray *held, const MemoryRegionSection *section)
{
    for (guint i = 0; i < held->len; i++) {
        KVMMemoryUpdate *update = held->pdata[i];

        if (update->section.mr == section->mr &&
            update->section.offset_within_address_space ==
            section->offset_within_address_space) {
            g_ptr_array_remove_index_fast(held, i);
            g_free(update);
            return true;
        }
    }
    return false;
}
