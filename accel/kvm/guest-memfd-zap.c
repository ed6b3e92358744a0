/*
 * What deleting a memslot costs an x86 guest
 *
 * By default KVM drops all page tables of the VM when any memslot is deleted
 * (Linux, arch/x86/kvm/mmu/mmu.c:kvm_mmu_invalidate_zap_pages_in_memslot(),
 * KVM_X86_QUIRK_SLOT_ZAP_ALL): the guest then pays for all of its memory
 * again.  Without the quirk only the mappings of that slot go.  KVM has it
 * because an assigned GPU failed without it in 2019, for a reason that nobody
 * found.  So it stays on where a device of the host is assigned at start.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/qapi-visit-common.h"
#include "qemu/error-report.h"
#include "qom/object.h"
#include "system/kvm_int.h"
#include "system/system.h"
#include "guest-memfd-zap.h"
#include "trace.h"

#ifdef KVM_X86_QUIRK_SLOT_ZAP_ALL

/* Property slot-zap-all of the accelerator */
static OnOffAuto zap_all = ON_OFF_AUTO_AUTO;
static bool zaps_slot_only;

static bool host_device_is_assigned(void)
{
    bool several = false;

    return object_resolve_path_type("", "vfio-pci-base", &several) || several;
}

static void decide(Notifier *notifier, void *data)
{
    int quirks, ret;

    if (zap_all == ON_OFF_AUTO_ON ||
        (zap_all == ON_OFF_AUTO_AUTO && host_device_is_assigned())) {
        return;
    }
    quirks = kvm_vm_check_extension(kvm_state, KVM_CAP_DISABLE_QUIRKS2);
    ret = quirks > 0 && quirks & KVM_X86_QUIRK_SLOT_ZAP_ALL
          ? kvm_vm_enable_cap(kvm_state, KVM_CAP_DISABLE_QUIRKS2, 0,
                              KVM_X86_QUIRK_SLOT_ZAP_ALL)
          : -ENOTSUP;
    zaps_slot_only = ret == 0;
    trace_kvm_guest_memfd_zap(zaps_slot_only, ret);
    if (ret && zap_all == ON_OFF_AUTO_OFF) {
        warn_report("-accel kvm,slot-zap-all=off has no effect: %s",
                    strerror(-ret));
    }
}

void kvm_gmem_init_zap(void)
{
    static Notifier machine_done = { .notify = decide };

    qemu_add_machine_init_done_notifier(&machine_done);
}

bool kvm_gmem_zaps_slot_only(void)
{
    return zaps_slot_only;
}

static void get_zap_all(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    visit_type_OnOffAuto(v, name, &zap_all, errp);
}

static void set_zap_all(Object *obj, Visitor *v, const char *name,
                        void *opaque, Error **errp)
{
    visit_type_OnOffAuto(v, name, &zap_all, errp);
}

void kvm_gmem_add_accel_property(ObjectClass *oc)
{
    object_class_property_add(oc, "slot-zap-all", "OnOffAuto",
                              get_zap_all, set_zap_all, NULL, NULL);
    object_class_property_set_description(oc, "slot-zap-all",
        "Drop all of a guest's page tables when a memslot is deleted"
        " (auto: not if RAM is a guest_memfd and no host device is assigned)");
}

#else

/* Elsewhere KVM never did otherwise */
void kvm_gmem_init_zap(void)
{
}

bool kvm_gmem_zaps_slot_only(void)
{
    return true;
}

void kvm_gmem_add_accel_property(ObjectClass *oc)
{
}

#endif
