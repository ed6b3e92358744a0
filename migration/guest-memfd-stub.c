/*
 * Migration of guest_memfd RAM where the host is not Linux: there is none
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "guest-memfd.h"

bool gmem_check_userfault(RAMBlock *rb, MigrationCapability cap, Error **errp)
{
    g_assert_not_reached();
}

bool gmem_check_snapshot(const bool *caps, Error **errp)
{
    return true;
}

void gmem_migration_begins(void)
{
}

void gmem_migration_ended(void)
{
}

void gmem_cursor_forget(GmemCursor *cursor)
{
}

bool gmem_page_is_hole(GmemCursor *cursor, RAMBlock *rb, uint64_t offset)
{
    return false;
}

void gmem_load_begins(void)
{
}

void gmem_load_record(GmemLoad *load, RAMBlock *rb, uint64_t offset, int flags)
{
}

bool gmem_zero_page(GmemLoad *load, void *host, uint64_t size)
{
    return false;
}
