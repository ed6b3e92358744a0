/*
 * A migration that gets nowhere: meanwhile all writes to the RAM are logged
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "crawl.h"
#include "../migration/migration-qmp.h"
#include "../migration/migration-util.h"

static const char *never_completed[] = { "completed", NULL };

void crawl_start(VM *vm, uint64_t start)
{
    uint64_t size = vm_info_number(vm, "ram0", "size");

    /* Enough for however slow this machine is */
    g_assert_cmpint(size - start, >, 15 * 60 * CRAWL_BANDWIDTH);
    qtest_memset(vm->qts, start, 1, size - start);
    crawl_wait_bound(vm);
    migrate_set_parameter_int(vm->qts, "max-bandwidth", CRAWL_BANDWIDTH);
    migrate_qmp(vm->qts, NULL, "exec:cat > /dev/null", NULL, "{}");
    VM_WAIT(read_ram_property_int(vm->qts, "dirty-sync-count") >= 1);
    vm_assert_unbound(vm, "ram0", "dirty-log");
}

void crawl_cancel(VM *vm)
{
    g_assert_cmpint(read_ram_property_int(vm->qts, "dirty-sync-count"), ==, 1);
    vm_assert_unbound(vm, "ram0", "dirty-log");
    migrate_cancel(vm->qts);
    wait_for_migration_status(vm->qts, "cancelled", never_completed);
    crawl_wait_bound(vm);
}

void crawl_wait_bound(VM *vm)
{
    vm_wait_settled(vm, "ram0");
    vm_assert_bound(vm, "ram0", vm_info_number(vm, "ram0", "size"));
}
