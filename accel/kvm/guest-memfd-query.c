/*
 * What the user is shown of the memslots of guest_memfd RAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/util.h"
#include "system/guest-memfd-kvm.h"
#include "guest-memfd-kvm-all.h"
#include "guest-memfd-slot.h"

static int compare_slots(const void *a, const void *b)
{
    const KVMSlot *sa = *(const KVMSlot **)a, *sb = *(const KVMSlot **)b;

    return sa->start_addr < sb->start_addr ? -1
         : sa->start_addr > sb->start_addr;
}

/* Neighbours of the same state are one to the user */
static bool continues(const GuestMemfdSlot *info, const KVMSlot *slot)
{
    return info && info->address_space == slot->as_id &&
           info->gpa + info->size == slot->start_addr &&
           info->offset + info->size == gmem_slot_offset(slot) &&
           info->state == slot->gmem->state;
}

GuestMemfdSlotList *kvm_gmem_query_slots(RAMBlock *rb)
{
    GuestMemfdSlotList *list = NULL, **tail = &list;

    /* QEMU 10.1 closes KVM when a VFIO device has gone to another process */
    if (!kvm_state) {
        return NULL;
    }
    for (int as = 0; as < kvm_state->nr_as; as++) {
        KVMMemoryListener *kml = kvm_state->as[as].ml;
        g_autoptr(GPtrArray) slots = g_ptr_array_new();
        GuestMemfdSlot *info = NULL;

        for (int i = 0; kml && i < kml->nr_slots_allocated; i++) {
            if (kml->slots[i].gmem &&
                kml->slots[i].gmem->mr->ram_block == rb) {
                g_ptr_array_add(slots, &kml->slots[i]);
            }
        }
        g_ptr_array_sort(slots, compare_slots);
        for (guint i = 0; i < slots->len; i++) {
            const KVMSlot *slot = slots->pdata[i];

            if (!continues(info, slot)) {
                info = g_new0(GuestMemfdSlot, 1);
                info->address_space = as;
                info->gpa = slot->start_addr;
                info->offset = gmem_slot_offset(slot);
                info->state = slot->gmem->state;
                QAPI_LIST_APPEND(tail, info);
            }
            info->size += slot->memory_size;
            info->memslots++;
        }
    }
    return list;
}

bool kvm_gmem_has_cell(KVMMemoryListener *kml, hwaddr gpa)
{
    for (int i = 0; i < kml->nr_slots_allocated; i++) {
        if (kml->slots[i].gmem && kml->slots[i].start_addr == gpa) {
            return true;
        }
    }
    return false;
}
