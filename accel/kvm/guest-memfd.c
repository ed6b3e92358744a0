/*
 * What this KVM can do: create a guest_memfd that the host can map, bind it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <linux/kvm.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/guest-memfd-kvm.h"
#include "system/kvm_int.h"
#include "guest-memfd-prefault.h"
#include "guest-memfd-probe.h"
#include "guest-memfd-slot.h"
#include "guest-memfd-zap.h"
#include "trace.h"

static const int needed = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED;

static bool check_support(Error **errp)
{
    int flags;

    if (!kvm_enabled()) {
        error_setg(errp, "guest_memfd needs KVM, which is not in use: start"
                   " QEMU with -accel kvm only, or use memory-backend-memfd");
        return false;
    }
    if (!kvm_vm_check_extension(kvm_state, KVM_CAP_GUEST_MEMFD) ||
        !kvm_vm_check_extension(kvm_state, KVM_CAP_USER_MEMORY2)) {
        error_setg(errp, "KVM of this host has no guest_memfd:"
                   " use Linux 6.18 or later, or memory-backend-memfd");
        return false;
    }

    /*
     * Asked of the VM, not of /dev/kvm: the answer depends on the VM type.
     * A bare KVM_CAP_GUEST_MEMFD tells nothing, Linux 6.8 to 6.17 have it for
     * private memory.
     */
    flags = kvm_vm_check_extension(kvm_state, KVM_CAP_GUEST_MEMFD_FLAGS);
    if (flags < 0 || (flags & needed) != needed) {
        error_setg(errp, "KVM cannot map the guest_memfd of this VM"
                   " (its guest_memfd flags are 0x%x, 0x%x are needed):"
                   " use Linux 6.18 or later and a machine that is not"
                   " confidential, or memory-backend-memfd",
                   MAX(flags, 0), needed);
        return false;
    }
    return true;
}

int kvm_gmem_create(uint64_t size, Error **errp)
{
    ERRP_GUARD();
    struct kvm_create_guest_memfd args = { .size = size, .flags = needed };
    int fd;

    if (!check_support(errp)) {
        return -1;
    }
    fd = kvm_vm_ioctl(kvm_state, KVM_CREATE_GUEST_MEMFD, &args);
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

void *kvm_gmem_create_page(int *fd)
{
    size_t size = qemu_real_host_page_size();
    void *page;

    *fd = kvm_gmem_create(size, NULL);
    if (*fd < 0) {
        return NULL;
    }
    page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (page == MAP_FAILED) {
        close(*fd);
        return NULL;
    }
    return page;
}

void kvm_gmem_destroy_page(void *page, int fd)
{
    munmap(page, qemu_real_host_page_size());
    close(fd);
}

bool kvm_gmem_shadows_page_tables(void)
{
#ifdef TARGET_I386
    /* The capability is missing exactly there */
    return kvm_vm_check_extension(kvm_state, KVM_CAP_PRE_FAULT_MEMORY) <= 0;
#else
    return false;
#endif
}

void kvm_gmem_init(void)
{
    static bool initialized;

    if (!initialized) {
        initialized = true;
        kvm_gmem_init_zap();
        kvm_gmem_init_prefault();
        gmem_slot_init();
    }
}

bool kvm_gmem_prepare_bind(Gmem *gmem, Error **errp)
{
    g_autoptr(Error) err = NULL;

    if (gmem->kvm_bind == ON_OFF_AUTO_OFF || kvm_gmem_probe_execute(&err)) {
        return true;
    }
    if (gmem->kvm_bind == ON_OFF_AUTO_ON) {
        error_setg(errp, "property 'kvm-bind' cannot be on: %s; use Linux 7.1"
                   " or later, or kvm-bind=auto", error_get_pretty(err));
        return false;
    }
    warn_report_once("guest_memfd is not bound: %s; use Linux 7.1 or later",
                     error_get_pretty(err));
    gmem->kernel_bug = true;
    return true;
}
