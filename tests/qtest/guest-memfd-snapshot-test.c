/*
 * Internal snapshots of VMs with guest_memfd RAM; guest-memfd-holes-test has
 * what they do to memory that nobody uses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "guest-memfd/snapshot.h"
#include "guest-memfd/vm.h"
#include "migration/migration-util.h"

#define COUNT       VM_AT(40 * MiB)
#define COUNT_LEN   (8 * MiB)
#define DIMM(i)     VM_AT(4 * (i + 1) * GiB)
#define DIMM_LEN    (128 * MiB)

typedef struct Case {
    const char *name;
    const char *accel;
    const char *bind;
    int cpus;
} Case;

static char *tmp;

static VM *start(const Case *c, const char *extra)
{
    g_autofree char *disk = snapshot_disk(tmp);
    VM *vm = vm_start("-accel kvm%s -machine " VM_TYPE ",memory-backend=ram0"
                      " -smp %d " VM_BACKEND ",kvm-bind=%s -m " VM_RAM
                      ",slots=2,maxmem=64G %s %s", c->accel ?: "", c->cpus,
                      c->bind ?: "auto", extra, disk);

    vm_wait_ready(vm);
    return vm;
}

static void assert_at_rest(VM *vm, const Case *c)
{
    vm_wait_settled(vm, "ram0");
    if (c->bind) {
        vm_assert_unbound(vm, "ram0", "disabled");
    } else {
        vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    }
}

static void quit(VM *vm)
{
    vm_quit(vm);
    snapshot_disk_remove(tmp);
}

static void test_save_and_load(const void *data)
{
    const Case *c = data;
    VM *vm = start(c, "");

    vm_fill(vm, 1);
    snapshot_save(vm, "one");
    assert_at_rest(vm, c);
    vm_check(vm, 1);

    vm_start_count(vm, c->cpus, COUNT, COUNT_LEN);
    snapshot_save(vm, "counting");
    assert_at_rest(vm, c);
    vm_stop_count(vm);
    vm_fill(vm, 2);

    snapshot_load(vm, "one");
    vm_check(vm, 1);
    assert_at_rest(vm, c);

    snapshot_load(vm, "counting");
    vm_stop_count(vm);
    assert_at_rest(vm, c);
    quit(vm);
}

/*
 * Before the snapshot is loaded, the guest's page tables are other ones than
 * in it: the payload makes those of two DIMMs in another order.
 */
static void test_page_tables(const void *data)
{
    const Case *c = data;
    g_autofree char *dimms = g_strdup_printf(
        "-object memory-backend-guest-memfd,id=mem0,size=128M"
        " -object memory-backend-guest-memfd,id=mem1,size=128M"
        " -device pc-dimm,memdev=mem0,addr=%" PRIu64
        " -device pc-dimm,memdev=mem1,addr=%" PRIu64,
        (uint64_t)DIMM(0), (uint64_t)DIMM(1));
    VM *vm = start(c, dimms);

    for (int i = 0; i < 2; i++) {
        vm_fill_range(vm, DIMM(i), DIMM_LEN, i);
    }
    snapshot_save(vm, "one");
    vm_reset(vm);
    for (int i = 1; i >= 0; i--) {
        vm_fill_range(vm, DIMM(i), DIMM_LEN, 2);
    }
    qtest_qmp_assert_success(vm->qts, "{'execute': 'stop'}");
    snapshot_load(vm, "one");
    qtest_qmp_assert_success(vm->qts, "{'execute': 'cont'}");
    for (int i = 0; i < 2; i++) {
        vm_check_range(vm, DIMM(i), DIMM_LEN, i);
    }
    assert_at_rest(vm, c);
    quit(vm);
}

static const Case cases[] = {
    { "bound", .cpus = 1 },
    { "unbound", .bind = "off", .cpus = 1 },
    { "4-cpus", .cpus = 4 },
    { "dirty-ring", ",dirty-ring-size=4096", .cpus = 2 },
};

static void add(const char *prefix, const Case *c, GTestDataFunc test)
{
    g_autofree char *path = g_strdup_printf("%s/%s", prefix, c->name);

    qtest_add_data_func(path, c, test);
}

int main(int argc, char **argv)
{
    int result;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        if (cases[i].accel && !kvm_dirty_ring_supported()) {
            g_test_message("KVM has no dirty ring here");
            continue;
        }
        add("/guest-memfd/snapshot/save-and-load", &cases[i],
            test_save_and_load);
        add("/guest-memfd/snapshot/page-tables", &cases[i], test_page_tables);
    }
    result = g_test_run();
    rmdir(tmp);
    return result;
}
