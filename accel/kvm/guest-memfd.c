/*
 * What this KVM can do: create a guest_memfd that the host can map, bind it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/guest-memfd.h"
#include "system/kvm_int.h"
#include "trace.h"

int kvm_guest_memfd_create(uint64_t size, Error **errp)
{
    ERRP_GUARD();
    const int needed = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;
    struct kvm_create_guest_memfd args = { .size = size, .flags = needed };
    KVMState *s = kvm_state;
    int flags, fd;

    if (!kvm_enabled()) {
        error_setg(errp, "guest_memfd needs KVM: start QEMU with -accel kvm");
        return -1;
    }
    if (!kvm_vm_check_extension(s, KVM_CAP_GUEST_MEMFD) ||
        !kvm_vm_check_extension(s, KVM_CAP_USER_MEMORY2)) {
        error_setg(errp, "KVM of this host has no guest_memfd:"
                   " use Linux 6.18 or later, or memory-backend-memfd");
        return -1;
    }

    /*
     * Asked of the VM, not of /dev/kvm: the answer depends on the VM type.
     * A bare KVM_CAP_GUEST_MEMFD tells nothing, Linux 6.8 to 6.17 have it for
     * private memory.
     */
    flags = kvm_vm_check_extension(s, KVM_CAP_GUEST_MEMFD_FLAGS);
    if (flags < 0 || (flags & needed) != needed) {
        error_setg(errp, "KVM cannot map the guest_memfd of this VM"
                   " (its guest_memfd flags are 0x%x, 0x%x are needed):"
                   " use Linux 6.18 or later and a machine that is not"
                   " confidential, or memory-backend-memfd",
                   MAX(flags, 0), needed);
        return -1;
    }

    fd = kvm_vm_ioctl(s, KVM_CREATE_GUEST_MEMFD, &args);
    trace_kvm_guest_memfd_create(size, fd);
    if (fd < 0) {
        error_setg_errno(errp, -fd, "KVM cannot create a guest_memfd of"
                         " 0x%" PRIx64 " bytes", size);
        if (fd == -EACCES) {
            error_append_hint(errp, "Does a security module forbid it?  SELinux"
                              " must allow QEMU's domain to create anon_inode"
                              " [kvm-gmem].\n");
        } else if (fd == -EMFILE || fd == -ENFILE) {
            error_append_hint(errp, "Raise the limit on open files"
                              " (ulimit -n, fs.file-max).\n");
        }
        return -1;
    }

    /* KVM has no flag for it, and helpers that we spawn must not keep RAM */
    qemu_set_cloexec(fd);
    return fd;
}

static bool kernel_hangs_guests(void)
{
#ifdef TARGET_AARCH64
    return kvm_arm_guest_memfd_hangs();
#else
    return false;
#endif
}

bool kvm_guest_memfd_check_bind(GuestMemfd *gmem, Error **errp)
{
    if (gmem->kvm_bind == ON_OFF_AUTO_OFF || !kernel_hangs_guests()) {
        return true;
    }
    if (gmem->kvm_bind == ON_OFF_AUTO_ON) {
        error_setg(errp, "property 'kvm-bind' cannot be on: on this kernel a"
                   " guest hangs when it executes memory that it wrote to a"
                   " bound guest_memfd; use Linux 7.1 or later, or"
                   " kvm-bind=auto");
        return false;
    }
    warn_report_once("guest_memfd is not bound, because on this kernel a guest"
                     " would hang when it executes memory that it wrote; use"
                     " Linux 7.1 or later");
    gmem->kernel_bug = true;
    return true;
}
