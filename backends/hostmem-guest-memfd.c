/*
 * Memory backends on a KVM guest_memfd that the host can map:
 * memory-backend-guest-memfd, and memory-backend-memfd with guest-memfd=on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-builtin-visit.h"
#include "qapi/qapi-visit-common.h"
#include "qemu/cutils.h"
#include "qemu/madvise.h"
#include "qemu/module.h"
#include "system/ramblock.h"
#include "hw/boards.h"
#include "migration/cpr.h"
#include "system/guest-memfd-kvm.h"
#include "system/hostmem-guest-memfd.h"
#include "system/hostmem.h"
#include "system/kvm.h"

static bool check_properties(HostMemoryBackend *backend, Error **errp)
{
    size_t page_size = qemu_real_host_page_size();
    Object *machine = qdev_get_machine();

    if (backend->size > ROUND_DOWN(INT64_MAX, page_size)) {
        error_setg(errp, "property 'size' is %" PRIu64 ", which is more than a"
                   " file can have", backend->size);
        return false;
    }
    if (!QEMU_IS_ALIGNED(backend->size, page_size)) {
        g_autofree char *page = size_to_str(page_size);

        error_setg(errp, "property 'size' is %" PRIu64 ", which is not a"
                   " multiple of the host page size: round it up to %" PRIu64
                   " (pages of %s)", backend->size,
                   ROUND_UP(backend->size, page_size), page);
        return false;
    }
    if (!backend->share) {
        error_setg(errp, "property 'share' cannot be off: a guest_memfd has no"
                   " copy-on-write mapping; use share=on or memory-backend-ram");
        return false;
    }
    if (object_property_find(OBJECT(backend), "hugetlb") &&
        object_property_get_bool(OBJECT(backend), "hugetlb", NULL)) {
        error_setg(errp, "properties 'guest-memfd' and 'hugetlb' cannot both be"
                   " on: a guest_memfd has no huge pages; use one of them");
        return false;
    }
    if (backend->merge && object_dynamic_cast(OBJECT(backend),
                                        TYPE_MEMORY_BACKEND_GUEST_MEMFD)) {
        error_setg(errp, "property 'merge' cannot be on: KSM never sees the"
                   " pages of a guest_memfd; use merge=off or"
                   " memory-backend-ram");
        return false;
    }
    if (object_property_find(machine, "mte") &&
        object_property_get_bool(machine, "mte", NULL)) {
        error_setg(errp, "a guest_memfd cannot hold memory tags: use -machine"
                   " mte=off or memory-backend-ram");
        return false;
    }
    if (backend->guest_memfd) {
        error_setg(errp, "a confidential guest has private memory, which a"
                   " mapped guest_memfd cannot be: use memory-backend-memfd"
                   " with guest-memfd=off");
        return false;
    }
    return true;
}

static int create_file(HostMemoryBackend *backend, const char *name,
                       Error **errp)
{
    int fd = kvm_gmem_create(backend->size, errp);

    if (fd < 0) {
        return -1;
    }
    /* Only now: what makes this fail should not be told twice */
    if (!kvm_gmem_prepare_bind(&backend->gmem, errp)) {
        close(fd);
        return -1;
    }
    /* The block of an unplugged namesake may still wait for its end */
    cpr_delete_fd(name, 0);
    cpr_save_fd(name, 0, fd);
    return fd;
}

/* A file that came with CPR belongs to the VM of the QEMU that was */
static bool take_over_file(HostMemoryBackend *backend, int fd, Error **errp)
{
    struct stat st;

    if (!kvm_enabled()) {
        error_setg(errp, "a guest_memfd can be taken over with -accel kvm"
                   " only");
        return false;
    }
    if (backend->gmem.kvm_bind == ON_OFF_AUTO_ON) {
        error_setg(errp, "property 'kvm-bind' cannot be on: the guest_memfd"
                   " came by CPR and belongs to the VM of the former QEMU, so"
                   " that this one can only map it; use kvm-bind=auto");
        return false;
    }
    /* Not lseek(), which a guest_memfd does not have */
    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot find out the size of the file"
                         " that came by CPR");
        return false;
    }
    if (st.st_size != backend->size) {
        error_setg(errp, "the guest_memfd that came by CPR has %" PRIu64
                   " bytes, not the %" PRIu64 " of property 'size'",
                   (uint64_t)st.st_size, backend->size);
        return false;
    }
    backend->gmem.other_vm = true;
    return true;
}

static int open_file(HostMemoryBackend *backend, const char *name,
                     Error **errp)
{
    int fd = cpr_is_incoming() ? cpr_find_fd(name, 0) : -1;

    if (fd < 0) {
        fd = create_file(backend, name, errp);
    } else if (!take_over_file(backend, fd, errp)) {
        cpr_delete_fd(name, 0);
        close(fd);
        fd = -1;
    }
    if (fd >= 0) {
        kvm_gmem_init();
    }
    return fd;
}

static bool map_file(HostMemoryBackend *backend, Error **errp)
{
    g_autofree char *name = host_memory_backend_get_name(backend);
    uint32_t ram_flags = RAM_SHARED | (backend->reserve ? 0 : RAM_NORESERVE);
    int fd = open_file(backend, name, errp);
    RAMBlock *rb;

    if (fd < 0) {
        return false;
    }
    if (!memory_region_init_ram_from_fd(&backend->mr, OBJECT(backend), name,
                                        backend->size, ram_flags, fd, 0,
                                        errp)) {
        cpr_delete_fd(name, 0);
        close(fd);
        return false;
    }

    /*
     * A guest_memfd has no huge pages, yet before Linux 7.0 khugepaged could
     * be tricked into making some.
     */
    rb = backend->mr.ram_block;
    qemu_madvise(rb->host, rb->max_length, QEMU_MADV_NOHUGEPAGE);
    rb->gmem = &backend->gmem;
    return true;
}

bool gmem_backend_alloc(HostMemoryBackend *backend, Error **errp)
{
    ERRP_GUARD();
    const char *id = object_get_canonical_path_component(OBJECT(backend));

    if (!check_properties(backend, errp) || !map_file(backend, errp)) {
        error_prepend(errp, "memory backend '%s': ", id);
        return false;
    }
    backend->merge = false;         /* that of memory-backend-memfd is on */
    if (backend->policy != HOST_MEM_POLICY_DEFAULT) {
        gmem_check_numa_policy(id);
    }
    gmem_prealloc_init();
    return true;
}

bool gmem_backend_wanted(HostMemoryBackend *backend, bool hugetlb)
{
    OnOffAuto enable = backend->gmem.enable;

    return enable == ON_OFF_AUTO_ON ||
           (enable == ON_OFF_AUTO_AUTO && backend->share && !hugetlb &&
            MACHINE(qdev_get_machine())->gmem);
}

static void get_enable(Object *obj, Visitor *v, const char *name,
                       void *opaque, Error **errp)
{
    visit_type_OnOffAuto(v, name, &MEMORY_BACKEND(obj)->gmem.enable, errp);
}

static void get_kvm_bind(Object *obj, Visitor *v, const char *name,
                         void *opaque, Error **errp)
{
    visit_type_OnOffAuto(v, name, &MEMORY_BACKEND(obj)->gmem.kvm_bind, errp);
}

/* Both properties decide what happens when the file is created */
static void set_before_alloc(Object *obj, Visitor *v, const char *name,
                             OnOffAuto *value, Error **errp)
{
    if (host_memory_backend_mr_inited(MEMORY_BACKEND(obj))) {
        error_setg(errp, "property '%s' cannot change after creation", name);
        return;
    }
    visit_type_OnOffAuto(v, name, value, errp);
}

static void set_enable(Object *obj, Visitor *v, const char *name,
                       void *opaque, Error **errp)
{
    set_before_alloc(obj, v, name, &MEMORY_BACKEND(obj)->gmem.enable, errp);
}

static void set_kvm_bind(Object *obj, Visitor *v, const char *name,
                         void *opaque, Error **errp)
{
    set_before_alloc(obj, v, name, &MEMORY_BACKEND(obj)->gmem.kvm_bind, errp);
}

void gmem_backend_add_property(ObjectClass *oc)
{
    object_class_property_add(oc, "guest-memfd", "OnOffAuto",
                              get_enable, set_enable, NULL, NULL);
    object_class_property_set_description(oc, "guest-memfd",
        "Use a KVM guest_memfd (auto: if the machine says guest-memfd=on)");
}

static void gmem_backend_instance_init(Object *obj)
{
    HostMemoryBackend *backend = MEMORY_BACKEND(obj);

    backend->share = true;
    backend->merge = false;
}

static void gmem_backend_class_init(ObjectClass *oc, const void *data)
{
    HostMemoryBackendClass *bc = MEMORY_BACKEND_CLASS(oc);

    bc->alloc = gmem_backend_alloc;

    object_class_property_add(oc, "kvm-bind", "OnOffAuto",
                              get_kvm_bind, set_kvm_bind, NULL, NULL);
    object_class_property_set_description(oc, "kvm-bind",
        "Bind the file to KVM's memslots (auto: wherever KVM allows it)");
}

static const TypeInfo gmem_backend_info = {
    .name = TYPE_MEMORY_BACKEND_GUEST_MEMFD,
    .parent = TYPE_MEMORY_BACKEND,
    .instance_init = gmem_backend_instance_init,
    .class_init = gmem_backend_class_init,
};

static void register_types(void)
{
    type_register_static(&gmem_backend_info);
}

type_init(register_types);
