/*
 * Introspection of RAM that is a guest_memfd: QMP and HMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-guest-memfd.h"
#include "qapi/util.h"
#include "qemu/rcu.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/ramlist.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qom/object.h"
#include "system/guest-memfd.h"

static GuestMemfdInfo *guest_memfd_info(RAMBlock *rb)
{
    GuestMemfdInfo *info = g_new0(GuestMemfdInfo, 1);

    info->id = g_strdup(object_get_canonical_path_component(rb->mr->owner));
    info->size = rb->max_length;
    info->kvm_bind = rb->gmem->kvm_bind;
    info->switches = rb->gmem->switches;
    info->max_inhibit_us = rb->gmem->max_inhibit_us;
    info->slots = kvm_guest_memfd_query_slots(rb);
    for (GuestMemfdSlotList *l = info->slots; l; l = l->next) {
        if (l->value->state == GUEST_MEMFD_SLOT_STATE_BOUND) {
            info->bound += l->value->size;
        } else {
            info->hva += l->value->size;
        }
    }
    return info;
}

GuestMemfdInfoList *qmp_query_guest_memfd(Error **errp)
{
    GuestMemfdInfoList *list = NULL, **tail = &list;
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH(rb) {
        /* A deleted backend has no id; its memory may still wait for RCU */
        if (rb->gmem && object_get_canonical_path_component(rb->mr->owner)) {
            QAPI_LIST_APPEND(tail, guest_memfd_info(rb));
        }
    }
    return list;
}

void hmp_info_guest_memfd(Monitor *mon, const QDict *qdict)
{
    g_autoptr(GuestMemfdInfoList) list = qmp_query_guest_memfd(&error_abort);

    if (!list) {
        monitor_printf(mon, "No memory backend is a guest_memfd\n");
    }
    for (GuestMemfdInfoList *l = list; l; l = l->next) {
        GuestMemfdInfo *info = l->value;

        monitor_printf(mon, "%s: %" PRIu64 " bytes, %" PRIu64 " bound, %" PRIu64
                       " by host mapping, kvm-bind %s, %" PRIu64
                       " switches (longest stop %" PRIu64 " us)\n",
                       info->id, info->size, info->bound, info->hva,
                       OnOffAuto_str(info->kvm_bind), info->switches,
                       info->max_inhibit_us);
        for (GuestMemfdSlotList *s = info->slots; s; s = s->next) {
            GuestMemfdSlot *slot = s->value;

            monitor_printf(mon, "  address space %" PRId64 " slot %3" PRId64
                           ": %016" PRIx64 "-%016" PRIx64
                           " offset %" PRIx64 ": %s\n",
                           slot->address_space, slot->slot, slot->gpa,
                           slot->gpa + slot->size - 1, slot->offset,
                           GuestMemfdSlotState_str(slot->state));
        }
    }
}
