/*
 * Guest page faults that KVM cannot serve from a guest_memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "system/address-spaces.h"
#include "system/memory.h"
#include "system/ramblock.h"
#include "system/guest-memfd.h"
#include "guest-memfd-kvm-all.h"
#include "trace.h"

/*
 * KVM_RUN returns -1 and KVM_EXIT_MEMORY_FAULT (Linux,
 * virt/kvm/guest_memfd.c:kvm_gmem_get_pfn()) with EHWPOISON for a page that
 * the host's memory has lost, ENOMEM when no page can be had, EFAULT when the
 * file is gone.
 */
bool kvm_gmem_handle_fault(CPUState *cpu, int err, int *ret)
{
    hwaddr gpa = cpu->kvm_run->memory_fault.gpa;
    MemoryRegionSection section;
    RAMBlock *rb;
    bool ours;

    /* Most are of confidential guests, which convert memory all the time */
    if (cpu->kvm_run->memory_fault.flags & KVM_MEMORY_EXIT_FLAG_PRIVATE ||
        !kvm_state->memory_listener.gmem) {
        return false;
    }

    bql_lock();
    section = memory_region_find(get_system_memory(), gpa, 1);
    rb = section.mr ? section.mr->ram_block : NULL;
    ours = rb && rb->gmem;
    if (ours) {
        const char *id = gmem_backend_id(rb);

        trace_kvm_guest_memfd_fault(id, gpa, err);
        *ret = -1;
#if defined(__x86_64__) || defined(__aarch64__)
        if (err == -EHWPOISON) {
            /* As a SIGBUS on the host mapping would: machine check or abort */
            kvm_arch_on_sigbus_vcpu(cpu, BUS_MCEERR_AR,
                                    rb->host + section.offset_within_region);
            *ret = 0;
        }
#endif
        if (*ret) {
            error_report("guest_memfd '%s': KVM cannot provide the page at"
                         " guest address 0x%" HWADDR_PRIx ": %s%s", id, gpa,
                         strerror(-err), err == -ENOMEM ? "; the host or"
                         " QEMU's memory cgroup is out of memory" : "");
        }
    }
    memory_region_unref(section.mr);
    bql_unlock();
    return ours;
}
