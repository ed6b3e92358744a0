/*
 * Memory backends and machines whose RAM is a guest_memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SYSTEM_HOSTMEM_GUEST_MEMFD_H
#define SYSTEM_HOSTMEM_GUEST_MEMFD_H

#include "exec/hwaddr.h"
#include "qom/object.h"

#define TYPE_MEMORY_BACKEND_GUEST_MEMFD "memory-backend-guest-memfd"

/**
 * gmem_backend_alloc: give a memory backend a guest_memfd as its RAM
 *
 * @backend: the backend, with all properties set and no memory yet
 * @errp: set with a sentence that names the property or the missing kernel
 *     feature, and the remedy
 *
 * The alloc method of memory-backend-guest-memfd; called by that of
 * memory-backend-memfd where gmem_backend_wanted().
 *
 * Returns: true on success.
 */
bool gmem_backend_alloc(HostMemoryBackend *backend, Error **errp);

/**
 * gmem_backend_wanted: shall a memory-backend-memfd be a guest_memfd?
 *
 * @backend: the backend, with all properties set and no memory yet
 * @hugetlb: the backend's property of that name
 *
 * Called by the alloc method of memory-backend-memfd.
 */
bool gmem_backend_wanted(HostMemoryBackend *backend, bool hugetlb);

/**
 * gmem_backend_add_property: add property guest-memfd to a class
 *
 * @oc: the class of memory-backend-memfd
 */
void gmem_backend_add_property(ObjectClass *oc);

/**
 * gmem_machine_add_property: add property guest-memfd to a class
 *
 * @oc: the class of machines
 */
void gmem_machine_add_property(ObjectClass *oc);

/**
 * gmem_machine_memdev_type: QOM type of a machine's default RAM
 *
 * @ms: the machine
 * @path: the argument of -mem-path, or NULL
 * @errp: set if @path contradicts -machine guest-memfd=on
 *
 * Called by create_default_memdev().
 *
 * Returns: the type, or NULL on error
 */
const char *gmem_machine_memdev_type(MachineState *ms, const char *path,
                                     Error **errp);

/**
 * gmem_machine_pre_plug: a memory device brings RAM to the machine
 *
 * @ms: the machine
 * @mr: the RAM of the device
 * @addr: guest physical address
 * @errp: set if it is a guest_memfd with kvm-bind=on that KVM would not bind
 *
 * Warns of RAM that -machine guest-memfd=on does not reach.  Called by
 * memory_device_pre_plug().
 *
 * Returns: true if it may be plugged
 */
bool gmem_machine_pre_plug(MachineState *ms, MemoryRegion *mr, hwaddr addr,
                           Error **errp);

#endif
