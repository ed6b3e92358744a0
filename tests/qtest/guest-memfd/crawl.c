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

void crawl_start(VM *vm)
{
    crawl_wait_bound(vm);
    migrate_set_parameter_int(vm->qts, "max-bandwidth", CRAWL_BANDWIDTH);
    migrate_qmp(vm->qts, NULL, "exec:cat > /dev/null", NULL, "{}");
    while (read_ram_property_int(vm->qts, "dirty-sync-count") < 1) {
        g_usleep(10 * 1000);
    }
    vm_assert_hva(vm, "ram0", "dirty-log");
}

void crawl_cancel(VM *vm)
{
    vm_assert_hva(vm, "ram0", "dirty-log");
    migrate_cancel(vm->qts);
    wait_for_migration_status(vm->qts, "cancelled", never_completed);
    crawl_wait_bound(vm);
}

void crawl_wait_bound(VM *vm)
{
    for (int i = 0; i < 6000 && vm_count_slots(vm, "ram0", "dirty-log"); i++) {
        g_usleep(10 * 1000);
    }
    vm_assert_bound(vm, "ram0", vm_info_number(vm, "ram0", "size"));
}
