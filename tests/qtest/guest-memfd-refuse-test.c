/*
 * What is refused while a VM with guest_memfd RAM runs, in a sentence and with
 * no harm done; and what looks like that, and is not refused
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "standard-headers/linux/virtio_pmem.h"
#include "guest-memfd/plug.h"
#include "guest-memfd/snapshot.h"
#include "guest-memfd/virtio.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"

#define DIMM_AT (4 * GiB)
#define DIMM_SIZE (64 * MiB)

static char *tmp;

static VM *start(const char *backend, const char *extra)
{
    return vm_start("-machine " VM_TYPE ",memory-backend=ram0 -m " VM_RAM
                    ",slots=2,maxmem=8G -object %s,id=ram0,share=on,size="
                    VM_RAM " %s", backend, extra);
}

#define GMEM "memory-backend-guest-memfd"
#define MEMFD "memory-backend-memfd"

/* QEMU said so in a sentence that has these words, and the VM goes on */
static void assert_refused(VM *vm, QDict *answer, const char *const *words)
{
    const char *desc;

    g_assert_true(qdict_haskey(answer, "error"));
    desc = qdict_get_str(qdict_get_qdict(answer, "error"), "desc");
    g_test_message("%s", desc);
    for (; *words; words++) {
        g_assert_nonnull(strstr(desc, *words));
    }
    qobject_unref(answer);
    vm_fill(vm, 3);
    vm_check(vm, 3);
}

#define REFUSED(vm, answer, ...) do { \
    static const char *const words_[] = { __VA_ARGS__, NULL }; \
    assert_refused(vm, answer, words_); \
} while (0)

/* Set a migration capability that not every kernel has for a memfd */
static bool kernel_can(VM *vm, const char *capability)
{
    g_autoptr(QDict) rsp =
        qtest_qmp(vm->qts, "{'execute': 'migrate-set-capabilities',"
                  "'arguments': {'capabilities': [{'capability': %s,"
                  "'state': true}]}}", capability);

    if (!qdict_haskey(rsp, "return")) {
        g_autofree char *why = g_strdup_printf("this kernel cannot do %s with"
                                               " a memfd", capability);

        g_test_skip(why);
        return false;
    }
    return true;
}

/* The kernel can, until memory comes for which it cannot */
static void test_snapshot_after_plug(void)
{
    VM *vm = start(MEMFD, "");

    vm_wait_ready(vm);
    if (!kernel_can(vm, "background-snapshot")) {
        vm_quit(vm);
        return;
    }
    vm_add_backend(vm, GMEM, 0, DIMM_SIZE);
    /* What is not plugged is not saved */
    qtest_qmp_assert_success(vm->qts, "{'execute': 'migrate', 'arguments': {"
                             "'uri': 'exec:cat>/dev/null'}}");
    wait_for_migration_complete(vm->qts);
    vm_add_dimm(vm, 0, DIMM_AT);
    REFUSED(vm, qtest_qmp(vm->qts, "{'execute': 'migrate', 'arguments': {"
                          "'uri': 'exec:cat>/dev/null'}}"),
            "background-snapshot", "'mem0'");
    vm_assert_bound(vm, "mem0", DIMM_SIZE);
    vm_quit(vm);
}

/* Two measurements at once are one and a refusal, however fast they come */
static void test_dirty_rate_in_quick_succession(void)
{
    VM *vm = start(GMEM, "");

    vm_wait_ready(vm);
    for (int i = 0; i < 20; i++) {
        /* All are there before QEMU has begun with the first */
        for (int j = 0; j < 3; j++) {
            qtest_qmp_send(vm->qts, "{'execute': 'calc-dirty-rate',"
                           "'arguments': {'calc-time': 50,"
                           "'calc-time-unit': 'millisecond'}}");
        }
        for (int j = 0; j < 3; j++) {
            qobject_unref(qtest_qmp_receive(vm->qts));
        }
        VM_WAIT(({
            g_autoptr(QDict) rsp = qtest_qmp_assert_success_ref(vm->qts,
                "{'execute': 'query-dirty-rate'}");
            g_str_equal(qdict_get_str(rsp, "status"), "measured");
        }));
    }
    /* A thread that left without telling RCU would keep this file for ever */
    vm_add_backend(vm, GMEM, 0, DIMM_SIZE);
    g_assert_cmpint(vm_count_gmem_fds(vm), ==, 2);
    vm_del_backend(vm, 0);
    vm_wait_gmem_fds(vm, 1);
    vm_quit(vm);
}

/* With a snapshot, which is for the caller to unlink */
static VM *start_with_snapshot(void)
{
    g_autofree char *disk = snapshot_disk(tmp);
    VM *vm = start(GMEM, disk);

    vm_wait_ready(vm);
    snapshot_save(vm, "one");
    return vm;
}

/* Which has nothing to do with it */
static void test_snapshot_after_failure(void)
{
    static const char *not_completed[] = { "completed", NULL };
    VM *vm = start_with_snapshot();

    migrate_qmp(vm->qts, NULL, "exec:false", NULL, "{}");
    wait_for_migration_status(vm->qts, "failed", not_completed);
    snapshot_load(vm, "one");
    vm_fill(vm, 3);
    vm_check(vm, 3);
    vm_quit(vm);
    snapshot_disk_remove(tmp);
}

static void test_snapshot_with_multifd(void)
{
    static const char *const commands[] = { "savevm one", "loadvm one" };
    VM *vm = start_with_snapshot();

    migrate_set_capability(vm->qts, "multifd", true);
    for (int i = 0; i < ARRAY_SIZE(commands); i++) {
        g_autofree char *said = qtest_hmp(vm->qts, "%s", commands[i]);

        g_assert_nonnull(strstr(said, "multifd"));
    }
    /* As after any loadvm that fails, the VM is stopped */
    qtest_qmp_assert_success(vm->qts, "{'execute': 'cont'}");
    vm_fill(vm, 3);
    vm_check(vm, 3);
    vm_quit(vm);
    snapshot_disk_remove(tmp);
}

static void test_async_teardown(void)
{
    /* It ends in any case, as there is no such file */
    static const char *const options[] = {
        "-run-with user=nobody,async-teardown=on",
        "-run-with user=nobody -run-with async-teardown=on",
        "-run-with async-teardown=on -run-with user=nobody",
    };

    for (int i = 0; i < ARRAY_SIZE(options); i++) {
        g_autofree char *err = vm_fail("%s -incoming file:/nonexistent",
                                       options[i]);

        g_assert_nonnull(strstr(err, "async-teardown"));
    }
}

/* kvm-bind=on is kept for a DIMM: bound, or not plugged */
static void test_plug_that_cannot_be_bound(void)
{
    VM *vm;

    vm_faults_begin("");
    vm = start(GMEM, "");
    vm_wait_ready(vm);
    qtest_qmp_assert_success(vm->qts, "{'execute': 'object-add', 'arguments': {"
                             "'qom-type': '" GMEM "', 'id': 'mem0',"
                             "'size': %" PRIu64 ", 'kvm-bind': 'on'}}",
                             DIMM_SIZE);
    vm_set_faults("bind=22");
    REFUSED(vm, vm_try_dimm(vm, 0, DIMM_AT), "'mem0'", "kvm-bind=auto");
    g_assert_cmpint(vm_count_slots(vm, "mem0", NULL), ==, 0);
    vm_set_faults("");
    vm_add_dimm(vm, 0, DIMM_AT);
    vm_assert_bound(vm, "mem0", DIMM_SIZE);
    vm_fill_range(vm, DIMM_AT, DIMM_SIZE, 5);
    vm_check_range(vm, DIMM_AT, DIMM_SIZE, 5);
    vm_faults_end();
    vm_quit(vm);
}

/* What was decided when the memory was made */
static void test_properties_at_run_time(void)
{
    VM *vm = start(GMEM, "");

    vm_wait_ready(vm);
    REFUSED(vm, qtest_qmp(vm->qts, "{'execute': 'qom-set', 'arguments': {"
                          "'path': '/objects/ram0', 'property': 'merge',"
                          "'value': true}}"), "KSM");
    REFUSED(vm, qtest_qmp(vm->qts, "{'execute': 'qom-set', 'arguments': {"
                          "'path': '/machine', 'property': 'guest-memfd',"
                          "'value': true}}"), "guest-memfd");
    REFUSED(vm, qtest_qmp(vm->qts, "{'execute': 'qom-set', 'arguments': {"
                          "'path': '/objects/ram0', 'property': 'kvm-bind',"
                          "'value': 'off'}}"), "kvm-bind");
    vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    vm_quit(vm);
}

static void test_sizes(void)
{
    static const struct {
        const char *size;
        const char *says;
    } rows[] = {
        { "-1", "size" },
        { "18446744073709551615", "more than a file can have" },
        { "9223372036854775808", "more than a file can have" },
        { "9223372036854775807", "more than a file can have" },
        { "4097", "round it up to" },
        { "0", "size" },
    };

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        g_autofree char *err = vm_fail("-object " GMEM ",id=m,size=%s",
                                       rows[i].size);

        g_assert_nonnull(strstr(err, rows[i].says));
        g_assert_null(strstr(err, "up to 0"));
    }
}

/* -machine guest-memfd=on says of each DIMM on other memory that it is none */
static void test_other_dimm(void)
{
    static const struct {
        const char *backend;
        bool warns;
    } rows[] = {
        { "memory-backend-ram", true },
        { "memory-backend-memfd,share=on", false },
        { "memory-backend-memfd,share=on,guest-memfd=off", false },
    };

    for (int i = 0; i < ARRAY_SIZE(rows); i++) {
        /* What it says as it starts, and then ends as it has no such file */
        g_autofree char *err = vm_fail(
            "-machine " VM_TYPE ",guest-memfd=on -m 128M,slots=2,maxmem=8G"
            " -object %s,id=other,size=64M -device pc-dimm,memdev=other"
            " -incoming file:/nonexistent", rows[i].backend);

        g_assert_true(!!strstr(err, "no effect on memory backend 'other'") ==
                      rows[i].warns);
        g_assert_null(strstr(err, "memory backend 'pc.ram'"));
    }
}

/* The warning is for each backend, not for each try */
static void test_warns_once(void)
{
    static const char warning[] = "no effect on memory backend 'other'";
    g_autofree char *log = g_strdup_printf("%s/log", tmp), *said = NULL;
    VM *vm = vm_start("-machine " VM_TYPE ",guest-memfd=on -m 128M,slots=4,"
                      "maxmem=8G -object memory-backend-ram,id=other,size=64M"
                      " 2>%s", log);

    vm_wait_ready(vm);
    for (int i = 0; i < 3; i++) {
        /* The others are refused: it is in use */
        qobject_unref(qtest_qmp(vm->qts, "{'execute': 'device_add',"
                                "'arguments': {'driver': 'pc-dimm', 'memdev':"
                                "'other'}}"));
    }
    vm_quit(vm);
    g_assert_true(g_file_get_contents(log, &said, NULL, NULL));
    g_assert_nonnull(strstr(said, warning));
    g_assert_null(strstr(strstr(said, warning) + 1, warning));
    unlink(log);
}

/* A source can do postcopy: it is the target that needs userfaultfd */
static void test_postcopy_to_memfd(void)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    const char *ended[] = { "failed", "completed", NULL };
    VM *src = start(GMEM, ""), *dst = start(MEMFD, "-incoming defer");

    vm_wait_ready(src);
    if (!kernel_can(dst, "postcopy-ram")) {
        goto out;
    }
    migrate_set_capability(src->qts, "postcopy-ram", true);
    vm_fill(src, 1);
    vm_write64(src, VM_AT(100 * MiB), 1);
    migrate_set_parameter_int(src->qts, "max-bandwidth", MiB);
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    wait_for_migration_status(src->qts, "active", ended);
    qtest_qmp_assert_success(src->qts, "{'execute': 'migrate-start-postcopy'}");
    migrate_set_parameter_int(src->qts, "max-bandwidth", 0);
    wait_for_migration_complete(src->qts);
    wait_for_migration_complete(dst->qts);
    g_assert_cmpint(vm_read64(dst, VM_AT(100 * MiB)), ==, 1);
    vm_write64(dst, VM_AT(100 * MiB), 0);
    vm_fill(dst, 2);
    vm_check(dst, 2);
out:
    vm_quit(dst);
    vm_quit(src);
}

#ifndef HOST_AARCH64
/* Persistent memory that is none has nothing to flush, and that is no error */
static void test_pmem(void)
{
    VM *vm = start(GMEM, "-object " GMEM ",id=mem0,size=64M"
                   " -device virtio-pmem-pci,memdev=mem0" IO_DEVICE);
    struct virtio_pmem_resp response = { .ret = cpu_to_le32(~0) };
    struct virtio_pmem_req request = {
        .type = cpu_to_le32(VIRTIO_PMEM_REQ_TYPE_FLUSH),
    };
    VirtioDriver *driver;
    uint64_t buf;

    vm_wait_ready(vm);
    driver = virtio_io_start(vm, 1);
    buf = virtio_alloc(driver, sizeof(request) + sizeof(response));
    qtest_memwrite(vm->qts, buf, &request, sizeof(request));
    qtest_memwrite(vm->qts, buf + sizeof(request), &response,
                   sizeof(response));
    virtio_submit(driver, 0, (const VirtioBuf[]) {
        { buf, sizeof(request) },
        { buf + sizeof(request), sizeof(response), true },
    }, 2);
    virtio_wait(driver, 0);
    qtest_memread(vm->qts, buf + sizeof(request), &response, sizeof(response));
    g_assert_cmpuint(le32_to_cpu(response.ret), ==, 0);
    virtio_free(driver);
    vm_quit(vm);
}

/* ... also not one that the guest could fill QEMU's log with */
static void test_nvme_pmr(void)
{
    const uint64_t bar = 0xe0000000, pmrsts = bar + 0xe08;
    const uint32_t slot6 = 0x80003000;
    g_autofree char *err = g_strdup_printf("%s/stderr", tmp);
    g_autofree char *extra = g_strdup_printf(
        "-object " GMEM ",id=mem0,size=1M"
        " -device nvme,serial=1,pmrdev=mem0" IO_DEVICE " 2>%s", err);
    g_autofree char *said = NULL;
    VM *vm = start(GMEM, extra);

    vm_wait_ready(vm);
    qtest_outl(vm->qts, 0xcf8, slot6 + 0x10);
    qtest_outl(vm->qts, 0xcfc, bar);
    qtest_outl(vm->qts, 0xcf8, slot6 + 0x14);
    qtest_outl(vm->qts, 0xcfc, 0);
    qtest_outl(vm->qts, 0xcf8, slot6 + 0x04);
    qtest_outl(vm->qts, 0xcfc, 2);
    /* It has a PMR of which reads of its status wait for earlier writes */
    g_assert_cmphex(qtest_readl(vm->qts, bar + 0xe00) & 0x800, ==, 0x800);
    qtest_readl(vm->qts, pmrsts);
    vm_quit(vm);
    g_assert_true(g_file_get_contents(err, &said, NULL, NULL));
    g_test_message("%s", said);
    g_assert_null(strstr(said, "sync"));
    unlink(err);
}
#endif

/* Let QEMU open no more than @n files; returns the limit that it had */
static struct rlimit leave_files(VM *vm, int n)
{
    int pid = qtest_pid(vm->qts), next = 0;
    struct rlimit old, new;

    while (n >= 0) {
        g_autofree char *path = g_strdup_printf("/proc/%d/fd/%d", pid, next);

        if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW)) {
            n--;
        }
        next += n >= 0;
    }
    g_assert_cmpint(prlimit(pid, RLIMIT_NOFILE, NULL, &old), ==, 0);
    new = (struct rlimit) { .rlim_cur = next, .rlim_max = old.rlim_max };
    g_assert_cmpint(prlimit(pid, RLIMIT_NOFILE, &new, NULL), ==, 0);
    return old;
}

/* What cannot be found out for want of files is not blamed on the kernel */
static void test_no_free_files(void)
{
    static const char add[] = "{'execute': 'object-add', 'arguments': {"
        "'qom-type': 'memory-backend-guest-memfd', 'id': 'mem0',"
        "'size': %" PRIu64 ", 'policy': 'bind', 'host-nodes': [0]}}";
    g_autofree char *log = g_build_filename(tmp, "log", NULL);
    g_autofree char *to_log = g_strdup_printf("2>%s", log);
    g_autofree char *text = NULL;
    VM *vm = start(GMEM, to_log);
    struct rlimit limit;

    vm_wait_ready(vm);
    limit = leave_files(vm, 0);
    REFUSED(vm, qtest_qmp(vm->qts, add, DIMM_SIZE),
            "mem0", "Too many open files");
    REFUSED(vm, qtest_qmp(vm->qts, "{'execute': 'migrate-set-capabilities',"
                          "'arguments': {'capabilities': [{"
                          "'capability': 'background-snapshot',"
                          "'state': true}]}}"),
            "background-snapshot", "Too many open files");

    /* One is enough for the backend, and not for whether it has a policy */
    leave_files(vm, 1);
    qtest_qmp_assert_success(vm->qts, add, DIMM_SIZE);
    g_assert_cmpint(prlimit(qtest_pid(vm->qts), RLIMIT_NOFILE, &limit, NULL),
                    ==, 0);
    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    g_assert_nonnull(strstr(text, "'policy'"));
    g_assert_nonnull(strstr(text, "cannot be found out"));
    vm_add_dimm(vm, 0, DIMM_AT);
    vm_assert_bound(vm, "mem0", DIMM_SIZE);
    vm_quit(vm);
    unlink(log);
}

int main(int argc, char **argv)
{
    g_autofree char *socket = NULL;
    int ret;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    qtest_add_func("/guest-memfd/refuse/snapshot-after-plug",
                   test_snapshot_after_plug);
    qtest_add_func("/guest-memfd/refuse/snapshot-with-multifd",
                   test_snapshot_with_multifd);
    qtest_add_func("/guest-memfd/allow/loadvm-after-failure",
                   test_snapshot_after_failure);
    qtest_add_func("/guest-memfd/refuse/dirty-rate",
                   test_dirty_rate_in_quick_succession);
    qtest_add_func("/guest-memfd/refuse/async-teardown", test_async_teardown);
    qtest_add_func("/guest-memfd/refuse/plug-unbound",
                   test_plug_that_cannot_be_bound);
    qtest_add_func("/guest-memfd/refuse/run-time", test_properties_at_run_time);
    qtest_add_func("/guest-memfd/refuse/size", test_sizes);
    qtest_add_func("/guest-memfd/refuse/no-free-files", test_no_free_files);
#ifndef HOST_AARCH64
    qtest_add_func("/guest-memfd/refuse/other-dimm", test_other_dimm);
    qtest_add_func("/guest-memfd/refuse/other-dimm-again", test_warns_once);
    qtest_add_func("/guest-memfd/allow/pmem-flush", test_pmem);
    qtest_add_func("/guest-memfd/allow/nvme-pmr", test_nvme_pmr);
#endif
    qtest_add_func("/guest-memfd/allow/postcopy-to-memfd",
                   test_postcopy_to_memfd);
    ret = g_test_run();
    socket = g_strdup_printf("%s/migration", tmp);
    unlink(socket);
    rmdir(tmp);
    return ret;
}
