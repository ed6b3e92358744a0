/*
 * -machine guest-memfd=on: the machine's RAM is a guest_memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/ramblock.h"
#include "hw/boards.h"
#include "hw/qdev-core.h"
#include "system/guest-memfd-kvm.h"
#include "system/hostmem-guest-memfd.h"
#include "system/hostmem.h"
#include "system/numa.h"
#include "system/system.h"

static void warn_if_other(HostMemoryBackend *backend)
{
    if (!backend || backend->mr.ram_block->gmem || backend->gmem.warned ||
        backend->gmem.enable == ON_OFF_AUTO_OFF) {
        return;
    }
    backend->gmem.warned = true;
    warn_report("-machine guest-memfd=on has no effect on memory backend '%s':"
                " it needs memory-backend-memfd, share=on, no hugetlb",
                object_get_canonical_path_component(OBJECT(backend)));
}

/* Management software may bring backends of another type, unasked. */
static void warn_of_other_memory(Notifier *notifier, void *data)
{
    MachineState *ms = MACHINE(qdev_get_machine());

    if (!ms->gmem) {
        return;
    }
    warn_if_other(ms->memdev);
    for (int i = 0; ms->numa_state && i < ms->numa_state->num_nodes; i++) {
        warn_if_other(ms->numa_state->nodes[i].node_memdev);
    }
}

static bool machine_get_guest_memfd(Object *obj, Error **errp)
{
    return MACHINE(obj)->gmem;
}

static void machine_set_guest_memfd(Object *obj, bool value, Error **errp)
{
    if (phase_check(PHASE_MACHINE_INITIALIZED)) {
        error_setg(errp, "property 'guest-memfd' cannot change after the"
                   " machine has its RAM");
        return;
    }
    MACHINE(obj)->gmem = value;
}

void gmem_machine_add_property(ObjectClass *oc)
{
    static Notifier machine_done = { .notify = warn_of_other_memory };

#ifndef CONFIG_LINUX
    return;
#endif
    object_class_property_add_bool(oc, "guest-memfd", machine_get_guest_memfd,
                                   machine_set_guest_memfd);
    object_class_property_set_description(oc, "guest-memfd",
        "Use a KVM guest_memfd as default RAM and for memory-backend-memfd");
    qemu_add_machine_init_done_notifier(&machine_done);
}

const char *gmem_machine_memdev_type(MachineState *ms, const char *path,
                                     Error **errp)
{
    if (ms->gmem && path) {
        error_setg(errp, "-machine guest-memfd=on and -mem-path exclude each"
                   " other: RAM is either a guest_memfd or a file in '%s'",
                   path);
        return NULL;
    }
    return ms->gmem ? TYPE_MEMORY_BACKEND_GUEST_MEMFD
         : path ? TYPE_MEMORY_BACKEND_FILE : TYPE_MEMORY_BACKEND_RAM;
}

bool gmem_machine_pre_plug(MachineState *ms, MemoryRegion *mr, hwaddr addr,
                           Error **errp)
{
    HostMemoryBackend *backend;

    if (!mr->ram_block ||
        !object_dynamic_cast(mr->owner, TYPE_MEMORY_BACKEND)) {
        return true;
    }
    backend = MEMORY_BACKEND(mr->owner);
    if (ms->gmem) {
        warn_if_other(backend);
    }
    return !mr->ram_block->gmem ||
           kvm_gmem_check_plug(mr->ram_block, addr, errp);
}
