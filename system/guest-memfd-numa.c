/*
 * Does the kernel honour NUMA policies of a guest_memfd?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "system/guest-memfd-kvm.h"
#ifdef CONFIG_NUMA
#include <numaif.h>
#endif

/*
 * Since Linux 6.19 a policy belongs to the file, where guest faults and
 * fallocate see it.  Before, mbind() succeeds and sets the policy of the host
 * mapping, which nothing looks at.  No version or capability tells, but a
 * second mapping of the file does: it shows the file's policy.
 */
static bool kernel_honours_policy(bool *known)
{
    bool honours = false;

    *known = false;
#ifdef CONFIG_NUMA
    int fd, mode;
    void *page = kvm_gmem_create_page(&fd), *other;
    size_t size = qemu_real_host_page_size();

    if (!page) {
        return false;
    }
    other = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    /* MPOL_LOCAL names no node, as any may be out of QEMU's reach */
    if (other != MAP_FAILED && !mbind(page, size, MPOL_LOCAL, NULL, 0, 0) &&
        !get_mempolicy(&mode, NULL, 0, other, MPOL_F_ADDR)) {
        *known = true;
        honours = mode == MPOL_LOCAL;
    }
    if (other != MAP_FAILED) {
        munmap(other, size);
    }
    kvm_gmem_destroy_page(page, fd);
#endif
    return honours;
}

void gmem_check_numa_policy(const char *id)
{
    static bool warned;
    bool known;

    if (warned || kernel_honours_policy(&known)) {
        return;
    }
    warned = true;
    if (known) {
        warn_report("memory backend '%s': this kernel ignores property 'policy'"
                    " of a guest_memfd; use Linux 6.19 or later, or run QEMU"
                    " under numactl", id);
    } else {
        warn_report("memory backend '%s': it cannot be found out whether this"
                    " kernel honours property 'policy' of a guest_memfd (Linux"
                    " 6.19 and later do); run QEMU under numactl", id);
    }
}
