/*
 * guest_memfd RAM that comes and goes while the guest runs, among other RAM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "guest-memfd/plug.h"

#define GMEM    "memory-backend-guest-memfd"
#define DIMM(i) ((4 + (i)) * GiB)
#define SIZE    (32 * MiB)
#define CYCLES  50

static void assert_in_use(VM *vm, const char *id)
{
    QDict *error = qtest_qmp_assert_failure_ref(vm->qts,
        "{'execute': 'object-del', 'arguments': {'id': %s}}", id);

    g_assert_nonnull(strstr(qdict_get_str(error, "desc"), "in use"));
    qobject_unref(error);
}

/* Each step by itself: bound as long as the DIMM is there */
static void test_dimm(const void *data)
{
    const VMKind *c = data;
    VM *vm = vm_start("-machine %s,memory-backend=ram0 -smp %d -m " VM_RAM
                      ",slots=2,maxmem=1G " VM_BACKEND, c->machine, c->cpus);

    vm_wait_ready(vm);
    for (int i = 0; i < 5; i++) {
        vm_add_backend(vm, GMEM, 0, SIZE);
        g_assert_cmpint(vm_info_number(vm, "mem0", "bound"), ==, 0);
        vm_add_dimm(vm, 0, DIMM(0));
        vm_assert_bound(vm, "mem0", SIZE);

        vm_check_zero(vm, DIMM(0), SIZE);
        vm_fill_range(vm, DIMM(0), SIZE, 8);
        vm_check_range(vm, DIMM(0), SIZE, 8);

        assert_in_use(vm, "mem0");
        vm_del_dimm(vm, 0);
        g_assert_cmpint(vm_info_number(vm, "mem0", "bound"), ==, 0);
        vm_del_backend(vm, 0);
        g_assert_false(vm_info_exists(vm, "mem0"));
        vm_wait_gmem_fds(vm, 1);
    }
    vm_quit(vm);
}

/* The guest counts all the while, and from time to time uses the DIMM */
static void test_cycles(const void *data)
{
    const VMKind *c = data;
    VM *vm = vm_start("-machine %s,memory-backend=ram0 " VM_BACKEND
                      " -smp %d -m " VM_RAM ",slots=2,maxmem=8G",
                      c->machine, c->cpus);
    int slots, maps = 0;

    vm_wait_ready(vm);
    slots = vm_count_slots(vm, "ram0", "bound");
    vm_start_count(vm, c->cpus, VM_AT(16 * MiB), 64 * MiB);
    for (int i = 0; i < CYCLES; i++) {
        uint64_t value = 0x1234567890 + i;

        vm_plug_dimm(vm, 0, SIZE, DIMM(0));
        vm_assert_bound(vm, "mem0", SIZE);
        g_assert_cmphex(qtest_readq(vm->qts, DIMM(0) + SIZE - 8), ==, 0);
        qtest_writeq(vm->qts, DIMM(0) + SIZE - 8, value);
        if (i % 10 == 0) {
            vm_stop_count(vm);
            g_assert_cmphex(vm_read64(vm, DIMM(0) + SIZE - 8), ==, value);
            vm_fill_range(vm, DIMM(0), SIZE, 5);
            vm_check_range(vm, DIMM(0), SIZE, 5);
            vm_start_count(vm, 1, VM_AT(16 * MiB), 64 * MiB);
        }
        assert_in_use(vm, "mem0");
        vm_remove_dimm(vm, 0);
        g_assert_false(vm_info_exists(vm, "mem0"));
        vm_wait_gmem_fds(vm, 1);
        g_assert_cmpint(vm_count_slots(vm, "ram0", "bound"), ==, slots);
        if (i == 0) {
            maps = vm_count_maps(vm);
        }
    }
    vm_stop_count(vm);
    g_assert_cmpint(vm_count_maps(vm), ==, maps);
    vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    vm_quit(vm);
}

/* A guest_memfd as boot memory of node 0, and five more pieces of RAM */
static void test_mixed(const void *data)
{
    const VMKind *c = data;
    VM *vm = vm_start("-machine %s -m 384M,slots=4,maxmem=16G -smp %d "
                      VM_BACKEND " -object memory-backend-memfd,id=memfd,"
                      "size=128M -object memory-backend-ram,id=anon,size=128M"
                      " -numa node,memdev=ram0,cpus=0 -numa node,memdev=memfd"
                      " -numa node,memdev=anon", c->machine, c->cpus);
    const char *const types[] = { GMEM, "memory-backend-memfd",
                                  "memory-backend-ram" };

    vm_wait_ready(vm);
    if (c->cpus > 1) {
        vm_do(vm, "smp %d", c->cpus);
    }
    for (int i = 0; i < ARRAY_SIZE(types); i++) {
        vm_add_backend(vm, types[i], i, SIZE);
        vm_add_dimm(vm, i, DIMM(i));
        vm_fill_range(vm, DIMM(i), SIZE, i);
    }
    vm_fill(vm, 9);
    g_assert_cmpint(vm_count_gmem_fds(vm), ==, 2);
    vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    vm_assert_bound(vm, "mem0", SIZE);
    g_assert_false(vm_info_exists(vm, "memfd"));
    g_assert_false(vm_info_exists(vm, "anon"));
    g_assert_false(vm_info_exists(vm, "mem1"));
    g_assert_false(vm_info_exists(vm, "mem2"));

    for (int i = 0; i < ARRAY_SIZE(types); i++) {
        vm_check_range(vm, DIMM(i), SIZE, i);
    }
    vm_remove_dimm(vm, 0);
    vm_remove_dimm(vm, 2);
    vm_check_range(vm, DIMM(1), SIZE, 1);
    vm_check(vm, 9);
    vm_quit(vm);
}

static void test_in_use(void)
{
    VM *vm = vm_start(VM_MACHINE(VM_TYPE) " " VM_BACKEND);

    assert_in_use(vm, "ram0");
    vm_wait_ready(vm);
    vm_fill(vm, 2);
    vm_check(vm, 2);
    vm_quit(vm);
}

/* A backend that nobody uses comes and goes, too */
static void test_unused(void)
{
    VM *vm = vm_start(VM_MACHINE(VM_TYPE) " " VM_BACKEND);

    vm_wait_ready(vm);
    for (int i = 0; i < CYCLES; i++) {
        vm_add_backend(vm, GMEM, 0, SIZE);
        g_assert_cmpint(vm_info_number(vm, "mem0", "bound"), ==, 0);
        g_assert_cmpint(vm_info_number(vm, "mem0", "mapped"), ==, 0);
        vm_del_backend(vm, 0);
        g_assert_false(vm_info_exists(vm, "mem0"));
    }
    vm_wait_gmem_fds(vm, 1);
    vm_quit(vm);
}

/* The name of a DIMM that is just gone, and may still be in memory, is free */
static void test_same_name(void)
{
    VM *vm = vm_start("-machine " VM_TYPE ",memory-backend=ram0 " VM_BACKEND
                      " -m " VM_RAM ",slots=2,maxmem=8G");

    vm_wait_ready(vm);
    for (int i = 0; i < CYCLES; i++) {
        vm_plug_dimm(vm, 0, SIZE, DIMM(0));
        vm_assert_bound(vm, "mem0", SIZE);
        g_assert_cmphex(qtest_readq(vm->qts, DIMM(0)), ==, 0);
        qtest_writeq(vm->qts, DIMM(0), 1);
        vm_remove_dimm(vm, 0);
    }
    vm_plug_dimm(vm, 0, SIZE, DIMM(0));
    vm_wait_gmem_fds(vm, 2);
    vm_fill_range(vm, DIMM(0), SIZE, 5);
    vm_check_range(vm, DIMM(0), SIZE, 5);
    vm_quit(vm);
}

/*
 * Each DIMM lies in two cells of the grid.  With one of two numbers of
 * memslots, KVM has one left in the end, which is too few.
 */
static void test_no_memslot_left(const void *data)
{
    const char *slots = data;
    VM *vm;
    int n = 0;

    vm_faults_begin(slots);
    vm = vm_start("-machine " VM_TYPE ",memory-backend=ram0 " VM_BACKEND
                  " -m " VM_RAM ",slots=32,maxmem=64G");
    vm_wait_ready(vm);
    for (bool refused = false; !refused; n++) {
        g_autoptr(QDict) rsp = NULL;

        vm_add_backend(vm, GMEM, n, SIZE);
        rsp = vm_try_dimm(vm, n, DIMM(n) + 240 * MiB);
        refused = qdict_haskey(rsp, "error");
        if (refused) {
            const char *text = qdict_get_str(qdict_get_qdict(rsp, "error"),
                                             "desc");

            g_assert_true(strstr(text, "memslots") ||
                          strstr(text, "memory slots"));
        }
    }
    g_assert_cmpint(n, >, 1);
    g_assert_cmpint(n, <, 32);
    vm_fill(vm, 3);
    vm_check(vm, 3);
    vm_remove_dimm(vm, 0);
    vm_quit(vm);
    vm_faults_end();
}

int main(int argc, char **argv)
{
    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    vm_add_tests("hotplug/dimm", test_dimm);
    vm_add_tests("hotplug/cycles", test_cycles);
    vm_add_tests("hotplug/mixed", test_mixed);
    qtest_add_func("/guest-memfd/hotplug/in-use", test_in_use);
    qtest_add_func("/guest-memfd/hotplug/unused", test_unused);
    qtest_add_func("/guest-memfd/hotplug/same-name", test_same_name);
    qtest_add_data_func("/guest-memfd/hotplug/no-memslot-left/even",
                        "slots=32", test_no_memslot_left);
    qtest_add_data_func("/guest-memfd/hotplug/no-memslot-left/odd",
                        "slots=33", test_no_memslot_left);
    return g_test_run();
}
