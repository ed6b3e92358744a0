/*
 * guest_memfd RAM that is allocated, locked or placed before the guest runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include <sys/syscall.h>
#include <linux/mempolicy.h>
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "guest-memfd/file.h"
#include "guest-memfd/vm.h"

#define RAM         (512 * MiB)
#define BACKEND(id) "-object memory-backend-guest-memfd,size=512M,id=" id
#define MACHINE     "-machine q35,memory-backend=ram0 -m 512M " BACKEND("ram0")

static char *log_path;

/* What QEMU wrote to log_path */
static char *read_log(void)
{
    char *text;

    g_assert_true(g_file_get_contents(log_path, &text, NULL, NULL));
    return text;
}

static int count_in_log(const char *what)
{
    g_autofree char *text = read_log();
    int n = 0;

    for (char *at = text; (at = strstr(at, what)); at++) {
        n++;
    }
    return n;
}

/*
 * Bytes that the trace says were preallocated, by @calls calls.  QEMU tries a
 * page first, to see whether it can be done at all.
 */
static uint64_t traced_bytes(int *calls)
{
    g_autofree char *text = read_log();
    uint64_t sum = 0;

    *calls = 0;
    for (char *at = text; (at = strstr(at, "guest_memfd_prealloc fd")); at++) {
        uint64_t size = g_ascii_strtoull(strstr(at, " size ") + 6, NULL, 0);

        if (size > qemu_real_host_page_size()) {
            sum += size;
            ++*calls;
        }
    }
    return sum;
}

#define TRACED " -trace guest_memfd_prealloc 2>"

typedef struct Case {
    const char *name;
    const char *args;
    uint64_t bytes;             /* preallocated */
    int threads;
} Case;

/*
 * fallocate() gets the pages, and nobody has to touch them for it.  They are
 * mapped where that helps the guest.
 */
static void test_prealloc(const void *data)
{
    const Case *c = data;
    VM *vm = vm_start("%s -smp 4 -S" TRACED "%s", c->args, log_path);
    GmemFile *file = gmem_file_open(vm, RAM);
    int calls;

    g_assert_cmpint(traced_bytes(&calls), ==, c->bytes);
    /* QEMU has no use for more threads than processors */
    g_assert_cmpint(calls, ==, MIN(c->threads, sysconf(_SC_NPROCESSORS_ONLN)));
    if (c->bytes && vm_prealloc_maps()) {
        g_assert_cmpint(gmem_file_resident(file, 0, RAM), ==, RAM);
        g_assert_cmpint(gmem_smaps(vm, "Rss"), >=, RAM);
    } else {
        g_assert_cmpint(gmem_file_resident(file, 0, RAM), <, 4 * MiB);
    }

    qtest_qmp_assert_success(vm->qts, "{'execute': 'cont'}");
    vm_wait_ready(vm);
    vm_check_zero(vm, 0x4000000, 0x4000000);
    vm_fill(vm, 4);
    vm_check(vm, 4);
    gmem_file_close(file);
    vm_quit(vm);
}

static const Case cases[] = {
    { "off", MACHINE, 0, 0 },
    { "on", MACHINE ",prealloc=on", RAM, 4 },
    { "one-thread", MACHINE ",prealloc=on,prealloc-threads=1", RAM, 1 },
    { "threads", MACHINE ",prealloc=on,prealloc-threads=3", RAM, 3 },
    { "context", "-object thread-context,id=tc0 " MACHINE
      ",prealloc=on,prealloc-context=tc0,prealloc-threads=2", RAM, 2 },
    { "machine", "-machine pc,guest-memfd=on -m 512M", 0, 0 },
    { "mem-prealloc", "-machine pc,guest-memfd=on -m 512M -mem-prealloc",
      RAM, 4 },
    { "memfd", "-machine q35,memory-backend=ram0 -m 512M -object memory-backend"
      "-memfd,id=ram0,size=512M,guest-memfd=on,prealloc=on", RAM, 4 },
};

static void test_takes_memory(void)
{
    int64_t before = unevictable();
    VM *vm = vm_start(MACHINE ",prealloc=on -S");

    wait_unevictable(before, RAM);
    vm_quit(vm);
    wait_unevictable(before + RAM, -(int64_t)RAM);
}

/* mlockall() touches all pages */
static void test_mem_lock(void)
{
    struct rlimit limit;
    GmemFile *file;
    VM *vm;

#if defined(QEMU_SANITIZE_ADDRESS) || defined(QEMU_SANITIZE_THREAD)
    g_test_skip("with a sanitizer, mlockall() does nothing");
    return;
#endif
    g_assert_cmpint(getrlimit(RLIMIT_MEMLOCK, &limit), ==, 0);
    if (geteuid() && limit.rlim_cur != RLIM_INFINITY) {
        g_test_skip("the limit on locked memory (ulimit -l) is too low");
        return;
    }
    vm = vm_start(MACHINE " -S -overcommit mem-lock=on");
    file = gmem_file_open(vm, RAM);
    g_assert_cmpint(gmem_file_resident(file, 0, RAM), ==, RAM);
    g_assert_cmpint(gmem_smaps(vm, "Locked:"), ==, RAM);
    qtest_qmp_assert_success(vm->qts, "{'execute': 'cont'}");
    vm_wait_ready(vm);
    vm_assert_bound(vm, "ram0", RAM);
    vm_fill(vm, 4);
    vm_check(vm, 4);
    gmem_file_close(file);
    vm_quit(vm);
}

static void test_enomem(void)
{
    g_autofree char *err = NULL;

    vm_faults_begin("fallocate=12");
    err = vm_fail(MACHINE ",prealloc=on");
    vm_faults_end();
    g_assert_nonnull(strstr(err, "preallocat"));
    g_assert_nonnull(strstr(err, "Cannot allocate memory"));
    g_assert_null(strchr(strchr(err, '\n') + 1, '\n'));
}

/* Backends that come while the VM runs */

#define OBJECT_ADD "{'execute': 'object-add', 'arguments': {" \
    "'qom-type': 'memory-backend-guest-memfd', 'id': 'mem1'," \
    "'size': 67108864, 'prealloc': true}}"
#define OBJECT_DEL "{'execute': 'object-del', 'arguments': {'id': 'mem1'}}"

static void test_object_add(void)
{
    VM *vm = vm_start(MACHINE TRACED "%s", log_path);
    int calls;

    vm_wait_ready(vm);
    g_assert_cmpint(traced_bytes(&calls), ==, 0);
    qtest_qmp_assert_success(vm->qts, OBJECT_ADD);
    g_assert_cmpint(traced_bytes(&calls), ==, 64 * MiB);
    qtest_qmp_assert_success(vm->qts, OBJECT_DEL);
    vm_wait_gmem_fds(vm, 1);
    vm_quit(vm);
}

static void test_object_add_enomem(void)
{
    VM *vm;
    QDict *error;

    vm_faults_begin("");
    vm = vm_start(MACHINE);
    vm_wait_ready(vm);
    vm_start_count(vm, 1, 32 * MiB, 64 * MiB);
    for (int i = 0; i < 3; i++) {
        vm_set_faults("fallocate=12");
        error = qtest_qmp_assert_failure_ref(vm->qts, OBJECT_ADD);
        g_assert_nonnull(strstr(qdict_get_str(error, "desc"),
                                "Cannot allocate memory"));
        qobject_unref(error);
        g_assert_false(vm_info_exists(vm, "mem1"));
        vm_wait_gmem_fds(vm, 1);

        vm_set_faults("");
        qtest_qmp_assert_success(vm->qts, OBJECT_ADD);
        qtest_qmp_assert_success(vm->qts, OBJECT_DEL);
        vm_wait_gmem_fds(vm, 1);
    }
    vm_stop_count(vm);
    vm_faults_end();
    vm_quit(vm);
}

/* A signal interrupts fallocate(): QEMU calls it again */
static void test_eintr(void)
{
    QDict *rsp;
    VM *vm;

    vm_faults_begin("");
    vm = vm_start(MACHINE TRACED "%s", log_path);
    vm_wait_ready(vm);
    vm_set_faults("fallocate=4");
    qtest_qmp_send(vm->qts, OBJECT_ADD);
    while (!count_in_log("guest_memfd_prealloc fd")) {
        g_usleep(1000);
    }
    g_usleep(100 * 1000);
    vm_set_faults("");
    rsp = qtest_qmp_receive(vm->qts);
    g_assert_true(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
    vm_faults_end();
    vm_quit(vm);
}

static void test_qom_set(void)
{
    VM *vm = vm_start(MACHINE TRACED "%s", log_path);
    int calls;

    vm_wait_ready(vm);
    vm_fill_range(vm, 0x4000000, 0x4000000, 3);
    g_assert_cmpint(traced_bytes(&calls), ==, 0);
    qtest_qmp_assert_success(vm->qts, "{'execute': 'qom-set', 'arguments': {"
                             "'path': '/objects/ram0', 'property': 'prealloc',"
                             "'value': true}}");
    g_assert_cmpint(traced_bytes(&calls), ==, RAM);
    vm_check_range(vm, 0x4000000, 0x4000000, 3);
    vm_quit(vm);
}

/* NUMA policies */

/* Where the policy belongs to the file, another mapping of it has it, too */
static bool kernel_honours_policy(VM *vm)
{
    GmemFile *file = gmem_file_open(vm, 64 * MiB);
    int mode = MPOL_DEFAULT;

    g_assert_cmpint(syscall(SYS_get_mempolicy, &mode, NULL, 0, file->map,
                            MPOL_F_ADDR), ==, 0);
    gmem_file_close(file);
    return mode != MPOL_DEFAULT;
}

#define NODES(policy) "-m 192M -smp 2 -machine q35 " \
    "-object memory-backend-guest-memfd,id=a,size=64M" policy \
    " -object memory-backend-guest-memfd,id=b,size=128M" policy \
    " -numa node,memdev=a,cpus=0 -numa node,memdev=b,cpus=1 2>"

static void test_numa_policy(void)
{
    VM *vm = vm_start(NODES(",host-nodes=0,policy=bind") "%s", log_path);
    bool honoured = kernel_honours_policy(vm);

    vm_wait_ready(vm);
    g_test_message("this kernel %s NUMA policies",
                   honoured ? "honours" : "ignores");
    g_assert_cmpint(count_in_log("ignores property 'policy'"), ==, !honoured);
    g_assert_cmpint(vm_info_number(vm, "b", "bound"), >, 0);
    vm_fill(vm, 4);
    vm_check(vm, 4);
    vm_quit(vm);
}

static void test_numa_no_policy(void)
{
    VM *vm = vm_start(NODES("") "%s", log_path);

    vm_wait_ready(vm);
    g_assert_cmpint(count_in_log("policy"), ==, 0);
    g_assert_false(kernel_honours_policy(vm));
    vm_quit(vm);
}

int main(int argc, char **argv)
{
    int ret, fd;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    fd = g_file_open_tmp("guest-memfd-log-XXXXXX", &log_path, NULL);
    g_assert_cmpint(fd, >=, 0);
    close(fd);

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = g_strdup_printf("/guest-memfd/prealloc/%s",
                                                cases[i].name);

        qtest_add_data_func(path, &cases[i], test_prealloc);
    }
    qtest_add_func("/guest-memfd/prealloc/takes-memory", test_takes_memory);
    qtest_add_func("/guest-memfd/prealloc/mem-lock", test_mem_lock);
    qtest_add_func("/guest-memfd/prealloc/enomem", test_enomem);
    qtest_add_func("/guest-memfd/prealloc/eintr", test_eintr);
    qtest_add_func("/guest-memfd/prealloc/object-add", test_object_add);
    qtest_add_func("/guest-memfd/prealloc/object-add-enomem",
                   test_object_add_enomem);
    qtest_add_func("/guest-memfd/prealloc/qom-set", test_qom_set);
    qtest_add_func("/guest-memfd/numa/policy", test_numa_policy);
    qtest_add_func("/guest-memfd/numa/no-policy", test_numa_no_policy);

    ret = g_test_run();
    unlink(log_path);
    return ret;
}
