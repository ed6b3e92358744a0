/*
 * -machine guest-memfd=on: the machine's RAM is a guest_memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "hw/boards.h"
#include "system/guest-memfd.h"
#include "system/hostmem.h"

static bool machine_get_guest_memfd(Object *obj, Error **errp)
{
    return MACHINE(obj)->guest_memfd;
}

static void machine_set_guest_memfd(Object *obj, bool value, Error **errp)
{
    MACHINE(obj)->guest_memfd = value;
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
