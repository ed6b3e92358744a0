/*
 * Guest page faults that KVM cannot serve from a guest_memfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "qom/object.h"
#include "system/guest-memfd.h"
#include "system/kvm_int.h"
#include "trace.h"

/*
 * KVM_RUN returns -1 and KVM_EXIT_MEMORY_FAULT (Linux,
 * virt/kvm/guest_memfd.c:kvm_gmem_get_pfn()) with EHWPOISON for a page that
 * the host's memory has lost, ENOMEM when no page can be had, EFAULT when the
 * file is gone.
 */
bool kvm_guest_memfd_handle_fault(CPUState *cpu, int err, int *ret)
{
    hwaddr gpa = cpu->kvm_run->memory_fault.gpa;
    MemoryRegionSection section;
    RAMBlock *rb;
    bool ours;

    bql_lock();
    section = memory_region_find(get_system_memory(), gpa, 1);
    rb = section.mr ? section.mr->ram_block : NULL;
    ours = rb && rb->gmem;
    if (ours) {
        trace_kvm_guest_memfd_fault(memory_region_name(section.mr), gpa, err);
    }

#ifdef KVM_HAVE_MCE_INJECTION
    if (ours && err == -EHWPOISON) {
        /* As a SIGBUS on the host mapping would: machine check or abort */
        kvm_arch_on_sigbus_vcpu(cpu, BUS_MCEERR_AR,
                                rb->host + section.offset_within_region);
        *ret = 0;
    } else
#endif
    if (ours) {
        error_report("guest_memfd '%s': KVM cannot provide the page at guest"
                     " address 0x%" HWADDR_PRIx ": %s%s",
                     memory_region_name(section.mr), gpa, strerror(-err),
                     err == -ENOMEM ? "; the host or QEMU's memory cgroup is"
                     " out of memory" : "");
        *ret = -1;
    }
    memory_region_unref(section.mr);
    bql_unlock();
    return ours;
}
