/*
 * What three memory backends can do: the table of docs/system/guest-memfd.rst
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "guest-memfd/plug.h"
#include "migration/migration-qmp.h"

enum { ANON, MEMFD, GMEM, BACKENDS };

static const char *const types[BACKENDS] = {
    "memory-backend-ram", "memory-backend-memfd", "memory-backend-guest-memfd",
};

typedef struct Row {
    const char *name;
    const char *args;               /* right after the backend's */
    bool works[BACKENDS];
    const char *capability;
} Row;

static VM *start(int backend, const char *args)
{
    VM *vm = vm_start("-machine q35,memory-backend=ram0,aux-ram-share=on "
                      "-m " VM_RAM ",slots=1,maxmem=1G "
                      "-object %s,id=ram0,size=" VM_RAM "%s",
                      types[backend], args);

    vm_wait_ready(vm);
    return vm;
}

static void use(VM *vm)
{
    vm_fill_range(vm, 0x4000000, 0x1000000, 8);
    vm_check_range(vm, 0x4000000, 0x1000000, 8);
}

/* Does QEMU start with these options? */
static void test_start(const void *data)
{
    const Row *row = data;

    for (int i = 0; i < BACKENDS; i++) {
        if (row->works[i]) {
            VM *vm = start(i, row->args);

            use(vm);
            vm_quit(vm);
        } else {
            g_autofree char *err = vm_fail("-machine q35,memory-backend=ram0 "
                                           "-m " VM_RAM " -object %s,id=ram0,"
                                           "size=" VM_RAM "%s", types[i],
                                           row->args);

            g_assert_nonnull(strstr(err, "memory backend 'ram0': property"));
        }
    }
}

static const Row starts[] = {
    { "share-on", ",share=on", { true, true, true } },
    { "share-off", ",share=off", { true, true, false } },
    { "merge", ",merge=on", { true, true, false } },
    { "reserve-off", ",reserve=off", { true, true, true } },
    { "prealloc", ",prealloc=on", { true, true, true } },
    { "policy", ",policy=bind,host-nodes=0", { true, true, true } },
    { "dump-off", ",dump=off", { true, true, true } },
    { "mem-lock", " -overcommit mem-lock=on", { true, true, true } },
};

/* Without KVM */
static void test_tcg(void)
{
    for (int i = 0; i < BACKENDS; i++) {
        g_autofree char *args = g_strdup_printf(
            "-accel tcg -machine q35,memory-backend=ram0 -m " VM_RAM
            " -object %s,id=ram0,size=" VM_RAM, types[i]);

        if (i == GMEM) {
            g_autofree char *err = vm_fail("%s", args);

            g_assert_nonnull(strstr(err, "-accel kvm"));
        } else {
            qtest_quit(qtest_initf("%s -nodefaults -S -bios "
                                   "tests/guest-memfd/payload-%s.bin", args,
                                   qtest_get_arch()));
        }
    }
}

/* Does a VM that runs agree to this? */
static void test_capability(const void *data)
{
    const Row *row = data;

    for (int i = 0; i < BACKENDS; i++) {
        VM *vm = start(i, row->args);
        QDict *rsp = qtest_qmp(vm->qts, "{'execute': "
            "'migrate-set-capabilities', 'arguments': {'capabilities': ["
            "{'capability': %s, 'state': true}]}}", row->capability);

        g_assert_cmpint(qdict_haskey(rsp, "return"), ==, row->works[i]);
        qobject_unref(rsp);
        vm_quit(vm);
    }
}

static const Row capabilities[] = {
    /* A source; a target must have userfaultfd for it */
    { "postcopy", "", { true, true, true }, "postcopy-ram" },
    { "background-snapshot", "", { true, true, false },
      "background-snapshot" },
    { "precopy-multifd", "", { true, true, true }, "multifd" },
};

/* What stands in the way of cpr-transfer? */
static void test_cpr(const void *data)
{
    const Row *row = data;

    for (int i = 0; i < BACKENDS; i++) {
        VM *vm = start(i, row->args);
        QDict *rsp;

        migrate_set_parameter_str(vm->qts, "mode", "cpr-transfer");
        rsp = qtest_qmp_assert_success_ref(vm->qts,
                                           "{'execute': 'query-migrate'}");
        g_assert_cmpint(!qdict_haskey(rsp, "blocked-reasons"), ==,
                        row->works[i]);
        qobject_unref(rsp);
        vm_quit(vm);
    }
}

static const Row cprs[] = {
    { "cpr-transfer", "", { false, true, true } },
    { "cpr-transfer/share-on", ",share=on", { true, true, true } },
};

/* A DIMM comes, is used and goes */
static void test_dimm(void)
{
    for (int i = 0; i < BACKENDS; i++) {
        VM *vm = start(i, "");

        vm_add_backend(vm, types[i], 0, 32 * MiB);
        vm_add_dimm(vm, 0, 4 * GiB);
        vm_fill_range(vm, 0x100000000, 0x2000000, 8);
        vm_check_range(vm, 0x100000000, 0x2000000, 8);
        vm_remove_dimm(vm, 0);
        vm_quit(vm);
    }
}

static void add(const Row *rows, int n, GTestDataFunc func)
{
    for (int i = 0; i < n; i++) {
        g_autofree char *path = g_strdup_printf("/guest-memfd/compare/%s",
                                                rows[i].name);

        qtest_add_data_func(path, &rows[i], func);
    }
}

int main(int argc, char **argv)
{
    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    add(starts, ARRAY_SIZE(starts), test_start);
    add(capabilities, ARRAY_SIZE(capabilities), test_capability);
    add(cprs, ARRAY_SIZE(cprs), test_cpr);
    qtest_add_func("/guest-memfd/compare/tcg", test_tcg);
    qtest_add_func("/guest-memfd/compare/dimm", test_dimm);
    return g_test_run();
}
