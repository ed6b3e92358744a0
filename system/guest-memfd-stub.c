/*
 * guest_memfd RAM where the host is not Linux: there is none
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "exec/cpu-common.h"
#include "system/guest-memfd-holes.h"

uint64_t gmem_allocated(RAMBlock *rb)
{
    g_assert_not_reached();
}

const void *gmem_readable(const void *host, size_t size)
{
    return host;
}

void gmem_physical_read(hwaddr addr, void *buf, uint64_t size)
{
    cpu_physical_memory_read(addr, buf, size);
}
