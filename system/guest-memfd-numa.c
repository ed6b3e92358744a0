/*
 * Does the kernel honour NUMA policies of a guest_memfd?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "system/guest-memfd.h"
#ifdef CONFIG_NUMA
#include <numaif.h>
#endif

/*
 * Since Linux 6.19 a policy belongs to the file, where guest faults and
 * fallocate see it.  Before, mbind() succeeds and sets the policy of the host
 * mapping, which nothing looks at.  No version or capability tells, but a
 * second mapping of the file does: it shows the file's policy.
 */
static bool kernel_honours_policy(void)
{
#ifdef CONFIG_NUMA
    size_t size = qemu_real_host_page_size();
    int fd = kvm_guest_memfd_create(size, NULL);
    unsigned long node0 = 1;
    int mode = MPOL_DEFAULT;
    void *map[2];

    if (fd < 0) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        map[i] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (map[0] == MAP_FAILED || map[1] == MAP_FAILED ||
        mbind(map[0], size, MPOL_PREFERRED, &node0, 8 * sizeof(node0), 0) ||
        get_mempolicy(&mode, NULL, 0, map[1], MPOL_F_ADDR)) {
        mode = MPOL_DEFAULT;
    }
    for (int i = 0; i < 2; i++) {
        if (map[i] != MAP_FAILED) {
            munmap(map[i], size);
        }
    }
    close(fd);
    return mode == MPOL_PREFERRED;
#else
    return false;
#endif
}

void guest_memfd_check_numa_policy(const char *id)
{
    static bool warned;

    if (!warned && !kernel_honours_policy()) {
        warn_report("memory backend '%s': this kernel ignores property 'policy'"
                    " of a guest_memfd; use Linux 6.19 or later, or run QEMU"
                    " under numactl", id);
        warned = true;
    }
}
