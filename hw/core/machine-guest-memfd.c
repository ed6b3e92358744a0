/*
 * -machine guest-memfd=on: the machine's RAM is a guest_memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "exec/ramblock.h"
#include "hw/boards.h"
#include "system/guest-memfd.h"
#include "system/hostmem.h"
#include "system/numa.h"
#include "system/system.h"

static void warn_if_other(HostMemoryBackend *backend)
{
    if (!backend || backend->mr.ram_block->gmem ||
        backend->gmem.enable == ON_OFF_AUTO_OFF) {
        return;
    }
    warn_report("memory backend '%s' is no guest_memfd, despite -machine"
                " guest-memfd=on: that is for memory-backend-memfd with"
                " share=on and without huge pages",
                object_get_canonical_path_component(OBJECT(backend)));
}

/* Management software may bring backends of another type, unasked. */
static void warn_of_other_memory(Notifier *notifier, void *data)
{
    MachineState *ms = MACHINE(qdev_get_machine());

    if (!ms->guest_memfd) {
        return;
    }
    warn_if_other(ms->memdev);
    for (int i = 0; ms->numa_state && i < ms->numa_state->num_nodes; i++) {
        warn_if_other(ms->numa_state->nodes[i].node_memdev);
    }
}

static Notifier machine_done = { .notify = warn_of_other_memory };

static bool machine_get_guest_memfd(Object *obj, Error **errp)
{
    return MACHINE(obj)->guest_memfd;
}

static void machine_set_guest_memfd(Object *obj, bool value, Error **errp)
{
    MACHINE(obj)->guest_memfd = value;
    if (!machine_done.node.le_prev) {
        qemu_add_machine_init_done_notifier(&machine_done);
    }
}

void guest_memfd_machine_add_property(ObjectClass *oc)
{
    object_class_property_add_bool(oc, "guest-memfd", machine_get_guest_memfd,
                                   machine_set_guest_memfd);
    object_class_property_set_description(oc, "guest-memfd",
        "Use a KVM guest_memfd as default RAM and for memory-backend-memfd");
}

const char *guest_memfd_machine_memdev_type(MachineState *ms, const char *path,
                                            Error **errp)
{
    if (ms->guest_memfd && path) {
        error_setg(errp, "-machine guest-memfd=on and -mem-path exclude each"
                   " other: RAM is either a guest_memfd or a file in '%s'",
                   path);
        return NULL;
    }
    return ms->guest_memfd ? TYPE_MEMORY_BACKEND_GUEST_MEMFD
         : path ? TYPE_MEMORY_BACKEND_FILE : TYPE_MEMORY_BACKEND_RAM;
}
