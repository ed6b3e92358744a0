/*
 * memory-backend-guest-memfd: properties, errors, binding, contents
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/kvm.h>
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "guest-memfd/vm.h"

/* Where a test is not about all of RAM: that takes seconds in tests/nested */
#define PART    (8 * MiB)
#define MIDDLE  VM_AT(64 * MiB)

static VM *start(const char *machine, const char *extra)
{
    VM *vm = vm_start("-machine %s,memory-backend=ram0 -m " VM_RAM " "
                      VM_BACKEND "%s", machine, extra);

    vm_wait_ready(vm);
    return vm;
}

static VM *start_kind(const VMKind *kind)
{
    g_autofree char *smp = g_strdup_printf(" -smp %d", kind->cpus);

    return start(kind->machine, smp);
}

/* Run QEMU to its end; what it wrote to stderr */
static char *run(int *status, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

static char *run(int *status, const char *fmt, ...)
{
    g_autofree char *args = NULL, *line = NULL, *err = NULL;
    g_auto(GStrv) argv = NULL;
    g_autoptr(GError) error = NULL;
    va_list ap;

    va_start(ap, fmt);
    args = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    line = g_strdup_printf("%s -display none -nodefaults %s",
                           getenv("QTEST_QEMU_BINARY"), args);
    g_assert_true(g_shell_parse_argv(line, NULL, &argv, &error));
    g_assert_true(g_spawn_sync(NULL, argv, NULL, 0, NULL, NULL, NULL, &err,
                               status, &error));
    return g_steal_pointer(&err);
}

static int count_lines(const char *text)
{
    g_auto(GStrv) lines = g_strsplit(g_strchomp((char *)text), "\n", 0);

    return g_strv_length(lines);
}

/* Object and properties */

static void test_memdev(void)
{
    VM *vm = start(VM_TYPE, "");
    QDict *rsp = qtest_qmp(vm->qts, "{'execute': 'query-memdev'}");
    QListEntry *entry;
    int found = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *dev = qobject_to(QDict, qlist_entry_obj(entry));

        g_assert_cmpstr(qdict_get_str(dev, "id"), ==, "ram0");
        g_assert_cmpint(qdict_get_int(dev, "size"), ==, VM_RAM_SIZE);
        g_assert_true(qdict_get_bool(dev, "share"));
        g_assert_false(qdict_get_bool(dev, "merge"));
        g_assert_cmpstr(qdict_get_str(dev, "policy"), ==, "default");
        found++;
    }
    g_assert_cmpint(found, ==, 1);
    qobject_unref(rsp);
    vm_quit(vm);
}

static void test_help(void)
{
    int status;
    g_autofree char *err = NULL;
    g_autofree char *out = NULL;
    g_autofree char *line = g_strdup_printf(
        "%s -object memory-backend-guest-memfd,help",
        getenv("QTEST_QEMU_BINARY"));
    static const char *const properties[] = {
        "dump=", "host-nodes=", "kvm-bind=<OnOffAuto>", "merge=", "policy=",
        "prealloc=", "prealloc-context=", "prealloc-threads=", "reserve=",
        "share=", "size=",
    };

    g_assert_true(g_spawn_command_line_sync(line, &out, &err, &status, NULL));
    g_assert_cmpint(status, ==, 0);
    for (int i = 0; i < ARRAY_SIZE(properties); i++) {
        g_assert_nonnull(strstr(out, properties[i]));
    }
}

static void test_properties(void)
{
    static const struct {
        const char *set, *name;
        const char *expect;
    } rows[] = {
        { "", "share", "true" },
        { ",share=on", "share", "true" },
        { "", "merge", "false" },
        { ",merge=off", "merge", "false" },
        { "", "reserve", "true" },
        { ",reserve=off", "reserve", "false" },
        { "", "prealloc", "false" },
        { ",prealloc=on,prealloc-threads=2", "prealloc", "true" },
        { ",dump=off", "dump", "false" },
        { "", "kvm-bind", "\"auto\"" },
        { ",kvm-bind=on", "kvm-bind", "\"on\"" },
        { ",kvm-bind=off", "kvm-bind", "\"off\"" },
    };

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        VM *vm = start(VM_TYPE, rows[i].set);
        QDict *rsp = qtest_qmp(vm->qts, "{'execute': 'qom-get', 'arguments': {"
                               "'path': '/objects/ram0', 'property': %s}}",
                               rows[i].name);
        g_autoptr(GString) value = qobject_to_json(qdict_get(rsp, "return"));

        g_assert_cmpstr(value->str, ==, rows[i].expect);
        qobject_unref(rsp);
        if (strstr(rows[i].set, "kvm-bind=off")) {
            vm_assert_unbound(vm, "ram0", "disabled");
        } else {
            vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
        }
        vm_fill_range(vm, MIDDLE, PART, 7);
        vm_check_range(vm, MIDDLE, PART, 7);
        vm_quit(vm);
    }
}

/* Errors: one sentence that names the option and the remedy; exit status 1 */

typedef struct ErrorCase {
    const char *name;
    const char *args;
    const char *fault;          /* see tests/guest-memfd/fault.c */
    const char *option, *remedy;
} ErrorCase;

#define KVM "-accel kvm -cpu " VM_CPU " "
#define NOT_KVM "-accel qtest "
#define MACHINE "-machine " VM_TYPE ",memory-backend=ram0 "
#define GMEM "-object memory-backend-guest-memfd,id=ram0"
#define MEMFD VM_MACHINE(VM_TYPE) " -object memory-backend-memfd,id=ram0," \
    "size=" VM_RAM ",guest-memfd=on"
#define RAM VM_MACHINE(VM_TYPE) " " VM_BACKEND

static const ErrorCase errors[] = {
    { "share-off", KVM RAM ",share=off", NULL, "'share'", "share=on" },
    { "merge-on", KVM RAM ",merge=on", NULL, "'merge'", "merge=off" },
    { "no-size", KVM MACHINE GMEM, NULL, "'size'", "missing" },
    { "size-zero", KVM MACHINE GMEM ",size=0", NULL,
      "'size'", "doesn't take value '0'" },
    { "size-unaligned", KVM MACHINE GMEM ",size=134217729", NULL,
      "'size'", "round it up to 134221824" },
    { "mem-path", KVM "-machine " VM_TYPE ",guest-memfd=on -m 64M "
      "-mem-path /dev/shm", NULL, "guest-memfd=on", "-mem-path" },
    { "memfd/hugetlb", KVM MEMFD ",hugetlb=on", NULL,
      "'hugetlb'", "use one of them" },
    { "memfd/share-off", KVM MEMFD ",share=off", NULL, "'share'", "share=on" },
    { "machine-not-kvm", NOT_KVM "-machine " VM_TYPE ",guest-memfd=on -m 64M",
      NULL, "guest_memfd", "-accel kvm" },
    { "size-unlike-m", KVM MACHINE "-m 64M " VM_BACKEND, NULL, "-m", "size" },
    { "size-too-large", KVM MACHINE GMEM ",size=0x7ffffffffffff000", NULL,
      "guest RAM", "Cannot allocate memory" },
    { "prealloc-reserve", KVM RAM ",prealloc=on,reserve=off", NULL,
      "'reserve=off'", "incompatible" },
    { "unknown-property", KVM RAM ",hugetlb=on", NULL,
      "hugetlb", "Invalid parameter" },
    { "not-kvm", NOT_KVM RAM, NULL, "guest_memfd", "-accel kvm" },
    { "kernel/no-guest-memfd", KVM RAM, "cap=0",
      "no guest_memfd", "Linux 6.18" },
    { "kernel/no-flags", KVM RAM, "flags=0", "flags are 0x0", "Linux 6.18" },
    { "kernel/no-init-shared", KVM RAM, "flags=1",
      "flags are 0x1", "Linux 6.18" },
    { "kernel/create-EACCES", KVM RAM, "create=13",
      "Permission denied", "SELinux" },
    { "kernel/create-EMFILE", KVM RAM, "create=24",
      "Too many open files", "ulimit -n" },
    { "kernel/create-ENOMEM", KVM RAM, "create=12",
      "Cannot allocate memory", "guest_memfd" },
    { "kernel/bind-refused", KVM RAM ",kvm-bind=on", "bind=22",
      "cannot bind", "kvm-bind=auto" },
};

static void test_error(const void *data)
{
    const ErrorCase *c = data;
    g_autofree char *err = NULL;
    int status;

    if (c->fault) {
        vm_faults_begin(c->fault);
    }
    err = run(&status, "%s", c->args);
    vm_faults_end();

    g_test_message("%s", err);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    g_assert_nonnull(strstr(err, c->option));
    g_assert_nonnull(strstr(err, c->remedy));
    g_assert_cmpint(count_lines(err), <=, 2);   /* a hint at most */
}

/* Where KVM refuses to bind, auto goes on with the host mapping */
static void test_bind_refused_auto(void)
{
    VM *vm;

    vm_faults_begin("bind=22");
    vm = start(VM_TYPE, "");
    vm_faults_end();

    vm_assert_unbound(vm, "ram0", "refused");
    vm_fill_range(vm, MIDDLE, PART, 3);
    vm_check_range(vm, MIDDLE, PART, 3);
    vm_quit(vm);
}

#ifdef HOST_AARCH64
/*
 * Whether a guest may execute what it wrote is tried in a VM of its own, the
 * first with a vCPU.  Whatever that lacks: nothing is bound then.
 */
static const char *const probe_faults[] = {
    "vm@2=24", "vcpu@1=12", "initvcpu@1=22", "create@2=24", "run@1=12 gpa=0",
};

static void test_probe_fails(const void *fault)
{
    g_autofree char *err = NULL;
    int status;
    VM *vm;

    vm_faults_begin(fault);
    err = run(&status, "%s", KVM RAM ",kvm-bind=on");
    g_test_message("%s", err);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    g_assert_nonnull(strstr(err, "cannot be found out"));
    g_assert_nonnull(strstr(err, "kvm-bind=auto"));
    g_assert_cmpint(vm_count_failed_calls(), ==, 1);

    vm_set_faults(fault);
    vm = start(VM_TYPE, "");
    vm_faults_end();
    g_assert_cmpint(vm_count_failed_calls(), ==, 1);
    vm_assert_unbound(vm, "ram0", "kernel-bug");
    vm_fill_range(vm, MIDDLE, PART, 3);
    vm_check_range(vm, MIDDLE, PART, 3);
    vm_quit(vm);
}
#endif

/* Guest page faults that KVM cannot serve */

#define FAULT_ADDRESS   VM_AT(32 * MiB)
#define FILLED          (FAULT_ADDRESS - PART / 2)

static VM *start_faulty(int err, int flags, const char *extra)
{
    g_autofree char *fault = g_strdup_printf("run@1=%d gpa=%" PRIu64
                                             " attributes=%d", err,
                                             FAULT_ADDRESS, flags);
    VM *vm;

    vm_faults_begin("");
    vm = start(VM_TYPE, extra);
    vm_faults_end();
    vm_fill_range(vm, FILLED, PART, 4);
    vm_set_faults(fault);
    return vm;
}

/* The machine check resets our guest; the page is a fresh one afterwards */
static void test_fault_poison(void)
{
    VM *vm = start_faulty(EHWPOISON, 0, "");

    vm_poke(vm);
    qtest_qmp_eventwait(vm->qts, "RESET");
    vm_wait_ready(vm);
    vm_check_zero(vm, FAULT_ADDRESS, 4096);
    vm_check_range(vm, FAULT_ADDRESS - 4096, 4096, 4);
    vm_check_range(vm, FAULT_ADDRESS + 4096, 4096, 4);
    vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    vm_quit(vm);
}

/* The VM stops; nothing loops, nothing aborts, nothing is lost */
static void test_fault_stop(const void *err)
{
    VM *vm = start_faulty(GPOINTER_TO_INT(err), 0, "");
    QDict *rsp;

    vm_poke(vm);
    qtest_qmp_eventwait(vm->qts, "STOP");
    rsp = qtest_qmp_assert_success_ref(vm->qts, "{'execute': 'query-status'}");
    g_assert_cmpstr(qdict_get_str(rsp, "status"), ==, "internal-error");
    qobject_unref(rsp);

    qtest_qmp_assert_success(vm->qts, "{'execute': 'system_reset'}");
    qtest_qmp_assert_success(vm->qts, "{'execute': 'cont'}");
    vm_wait_ready(vm);
    vm_check_range(vm, FILLED, PART, 4);
    vm_quit(vm);
}

/*
 * A confidential guest's wish to convert memory is none of our business.  This
 * guest cannot have meant it, and so is stopped.
 */
static void test_fault_private(void)
{
    g_autofree char *log = NULL, *args = NULL, *text = NULL;
    VM *vm;

    close(g_file_open_tmp("guest-memfd-log-XXXXXX", &log, NULL));
    args = g_strdup_printf(" -D %s -trace kvm_convert_memory"
                           " -trace kvm_guest_memfd_fault", log);
    vm = start_faulty(EFAULT, KVM_MEMORY_EXIT_FLAG_PRIVATE, args);
    vm_poke(vm);
    qtest_qmp_eventwait(vm->qts, "STOP");
    vm_quit(vm);
    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    g_assert_nonnull(strstr(text, "kvm_convert_memory"));
    g_assert_null(strstr(text, "kvm_guest_memfd_fault"));
    unlink(log);
}

/* Bound, and coherent with the host mapping */

static void test_bound(const void *kind)
{
    VM *vm = start_kind(kind);

    vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    vm_fill(vm, 42);
    vm_check(vm, 42);
    vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    vm_quit(vm);
}

static void test_guest_writes_host_reads(void)
{
    VM *vm = start(VM_TYPE, "");
    const uint64_t addresses[] = {
        VM_AT(16 * MiB), VM_AT(64 * MiB + 8), VM_AT(VM_RAM_SIZE - 8)
    };

    for (int i = 0; i < ARRAY_SIZE(addresses); i++) {
        uint64_t value = 0x1122334455667788 + i;

        g_assert_cmphex(qtest_readq(vm->qts, addresses[i]), !=, value);
        vm_write64(vm, addresses[i], value);
        g_assert_cmphex(qtest_readq(vm->qts, addresses[i]), ==, value);
    }
    vm_quit(vm);
}

static void test_host_writes_guest_reads(void)
{
    VM *vm = start(VM_TYPE, "");
    const uint64_t addresses[] = {
        VM_AT(16 * MiB), VM_AT(64 * MiB + 8), VM_AT(VM_RAM_SIZE - 8)
    };

    for (int i = 0; i < ARRAY_SIZE(addresses); i++) {
        uint64_t value = 0x8877665544332211 + i;

        /* once before the guest ever touched the page, once after */
        qtest_writeq(vm->qts, addresses[i], value);
        g_assert_cmphex(vm_read64(vm, addresses[i]), ==, value);
        qtest_writeq(vm->qts, addresses[i], ~value);
        g_assert_cmphex(vm_read64(vm, addresses[i]), ==, ~value);
    }
    vm_quit(vm);
}

/* Store through the data side, execute from a bound page */
static void test_execute(void)
{
    VM *vm = start(VM_TYPE, "");

    for (uint64_t at = 32 * MiB; at < 40 * MiB; at += MiB + 4096) {
        vm_do(vm, "exec %" PRIu64, VM_AT(at));
    }
    vm_quit(vm);
}

/* Several files, several VMs */

static void test_two_backends(void)
{
    const uint64_t first = VM_AT(16 * MiB), second = first + 128 * MiB;
    VM *vm = vm_start("-machine " VM_TYPE " -m 256M -smp 2 "
                      "-object memory-backend-guest-memfd,id=node0,size=128M "
                      "-object memory-backend-guest-memfd,id=node1,size=128M "
                      "-numa node,memdev=node0,cpus=0 "
                      "-numa node,memdev=node1,cpus=1");

    vm_wait_ready(vm);
    g_assert_cmpint(vm_count_gmem_fds(vm), ==, 2);
    vm_assert_bound(vm, "node0", 128 * MiB);
    vm_assert_bound(vm, "node1", 128 * MiB);

    /* The same offset in each file */
    vm_write64(vm, first, 1);
    vm_write64(vm, second, 2);
    g_assert_cmpint(vm_read64(vm, first), ==, 1);
    g_assert_cmpint(vm_read64(vm, second), ==, 2);
    vm_fill_range(vm, VM_AT(128 * MiB - PART / 2), PART, 9);
    vm_check_range(vm, VM_AT(128 * MiB - PART / 2), PART, 9);
    vm_quit(vm);
}

static void test_two_vms(void)
{
    VM *a = start_kind(&vm_kinds[0]), *b = start(VM_TYPE, "");

    vm_assert_bound(a, "ram0", VM_RAM_SIZE);
    vm_assert_bound(b, "ram0", VM_RAM_SIZE);
    vm_fill_range(a, MIDDLE, PART, 1);
    vm_fill_range(b, MIDDLE, PART, 2);
    vm_check_range(a, MIDDLE, PART, 1);
    vm_quit(a);
    vm_check_range(b, MIDDLE, PART, 2);
    vm_quit(b);
}

int main(int argc, char **argv)
{
    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }

    qtest_add_func("/guest-memfd/object/memdev", test_memdev);
    qtest_add_func("/guest-memfd/object/help", test_help);
    qtest_add_func("/guest-memfd/object/properties", test_properties);
    for (int i = 0; i < ARRAY_SIZE(errors); i++) {
        g_autofree char *path = g_strdup_printf("/guest-memfd/error/%s",
                                                errors[i].name);

        qtest_add_data_func(path, &errors[i], test_error);
    }
    qtest_add_func("/guest-memfd/bind-refused/auto", test_bind_refused_auto);
#ifdef HOST_AARCH64
    for (int i = 0; i < ARRAY_SIZE(probe_faults); i++) {
        g_autofree char *path = g_strdup_printf("/guest-memfd/probe-fails/%s",
                                                probe_faults[i]);

        qtest_add_data_func(path, probe_faults[i], test_probe_fails);
    }
#endif
    qtest_add_data_func("/guest-memfd/fault/ENOMEM", GINT_TO_POINTER(ENOMEM),
                        test_fault_stop);
    qtest_add_data_func("/guest-memfd/fault/EFAULT", GINT_TO_POINTER(EFAULT),
                        test_fault_stop);
    qtest_add_func("/guest-memfd/fault/private", test_fault_private);
    vm_add_tests("bound", test_bound);
    qtest_add_func("/guest-memfd/coherent/guest-writes",
                   test_guest_writes_host_reads);
    qtest_add_func("/guest-memfd/coherent/host-writes",
                   test_host_writes_guest_reads);
    qtest_add_func("/guest-memfd/execute", test_execute);
    qtest_add_func("/guest-memfd/two-backends", test_two_backends);
    qtest_add_func("/guest-memfd/two-vms", test_two_vms);
    if (g_str_equal(qtest_get_arch(), "x86_64")) {
        qtest_add_func("/guest-memfd/fault/poison", test_fault_poison);
    }

    return g_test_run();
}
