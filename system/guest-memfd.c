/*
 * Introspection of RAM that is a guest_memfd: QMP and HMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-guest-memfd.h"
#include "qapi/util.h"
#include "qemu/coroutine.h"
#include "qemu/rcu.h"
#include "system/memory.h"
#include "system/ramblock.h"
#include "exec/ramlist.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qom/object.h"
#include "system/guest-memfd-holes.h"
#include "system/guest-memfd-kvm.h"

const char *gmem_backend_id(const RAMBlock *rb)
{
    return object_get_canonical_path_component(rb->mr->owner);
}

static GuestMemfdInfo *gmem_info(RAMBlock *rb)
{
    GuestMemfdInfo *info = g_new0(GuestMemfdInfo, 1);

    info->id = g_strdup(gmem_backend_id(rb));
    info->size = rb->max_length;
    info->kvm_bind = rb->gmem->kvm_bind;
    info->switches = rb->gmem->switches;
    info->max_inhibit_us = rb->gmem->max_inhibit_us;
    info->slots = kvm_gmem_query_slots(rb);
    for (GuestMemfdSlotList *l = info->slots; l; l = l->next) {
        if (l->value->address_space) {
            continue;                   /* all of RAM once more, to x86 SMM */
        }
        if (l->value->state == GUEST_MEMFD_SLOT_STATE_BOUND) {
            info->bound += l->value->size;
        } else {
            info->mapped += l->value->size;
        }
    }
    return info;
}

/* What is to be found out about a block, which cannot go meanwhile */
typedef struct Count {
    RAMBlock *rb;
    GuestMemfdInfo *info;
} Count;

static int count_allocated(void *opaque)
{
    Count *count = opaque;

    count->info->allocated = gmem_allocated(count->rb);
    return 0;
}

/* The kernel is asked about each page, for seconds: not under the BQL */
GuestMemfdInfoList *coroutine_fn qmp_query_guest_memfd(Error **errp)
{
    GuestMemfdInfoList *list = NULL, **tail = &list;
    g_autoptr(GArray) counts = g_array_new(false, false, sizeof(Count));
    RAMBlock *rb;

    WITH_RCU_READ_LOCK_GUARD() {
        RAMBLOCK_FOREACH(rb) {
            if (rb->gmem && gmem_backend_id(rb)) {
                Count count = { rb, gmem_info(rb) };

                memory_region_ref(rb->mr);
                g_array_append_val(counts, count);
                QAPI_LIST_APPEND(tail, count.info);
            }
        }
    }
    for (guint i = 0; i < counts->len; i++) {
        Count *count = &g_array_index(counts, Count, i);

        thread_pool_submit_co(count_allocated, count);
        memory_region_unref(count->rb->mr);
    }
    return list;
}

void coroutine_fn hmp_info_guest_memfd(Monitor *mon, const QDict *qdict)
{
    g_autoptr(GuestMemfdInfoList) list = qmp_query_guest_memfd(&error_abort);

    if (!list) {
        monitor_printf(mon, "No memory backend is a guest_memfd\n");
    }
    for (GuestMemfdInfoList *l = list; l; l = l->next) {
        GuestMemfdInfo *info = l->value;

        monitor_printf(mon, "%s: %" PRIu64 " bytes, %" PRIu64 " allocated,"
                       " %" PRIu64 " bound, %" PRIu64 " mapped, kvm-bind %s, %"
                       PRIu64 " switches (longest stop %" PRIu64 " us)\n",
                       info->id, info->size, info->allocated, info->bound,
                       info->mapped, OnOffAuto_str(info->kvm_bind),
                       info->switches, info->max_inhibit_us);
        for (GuestMemfdSlotList *s = info->slots; s; s = s->next) {
            GuestMemfdSlot *slot = s->value;

            monitor_printf(mon, "  address space %" PRId64 ": %016" PRIx64
                           "-%016" PRIx64 " offset %" PRIx64 ": %s (%" PRId64
                           " %s)\n", slot->address_space, slot->gpa,
                           slot->gpa + slot->size - 1, slot->offset,
                           GuestMemfdSlotState_str(slot->state),
                           slot->memslots,
                           slot->memslots == 1 ? "memslot" : "memslots");
        }
    }
}
