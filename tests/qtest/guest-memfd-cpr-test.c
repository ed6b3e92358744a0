/*
 * guest_memfd RAM that outlives its QEMU: CheckPoint and Restart
 *
 * The guest counts in its RAM all the while, as in guest-memfd-migration-test.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/sockets.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "guest-memfd/plug.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"

#define COUNT       VM_AT(16 * MiB)
#define COUNT_LEN   (64 * MiB)
#define DIMM        (4 * GiB)
#define DIMM_LEN    (64 * MiB)

static char *tmp;

/* The same for each VM of a test: RAM, and a DIMM */
static char *vm_args(const VMKind *c, const char *extra)
{
    return g_strdup_printf("-machine %s,memory-backend=ram0,aux-ram-share=on "
                           "-m " VM_RAM ",slots=2,maxmem=1G -smp %d " VM_BACKEND
                           " -object memory-backend-guest-memfd,id=mem0,"
                           "size=64M -device pc-dimm,memdev=mem0,id=dimm0,"
                           "addr=0x100000000 %s", c->machine, c->cpus, extra);
}

static VM *start(const VMKind *c, const char *extra)
{
    g_autofree char *args = vm_args(c, extra);

    return vm_start("%s", args);
}

static int connect_to(const char *path)
{
    int fd = -1;

    VM_WAIT((fd = unix_connect(path, NULL)) >= 0);
    return fd;
}

/* What continues a VM; its serial port is a socket to connect to */
static char *successor_args(const VMKind *c, const char *incoming,
                            const char *serial)
{
    g_autofree char *extra = g_strdup_printf(
        "-accel kvm -cpu " VM_CPU " -nodefaults "
        "-bios tests/guest-memfd/payload-%s.bin "
        "-chardev socket,id=s0,path=%s,server=on,wait=off -serial chardev:s0 "
        "-incoming %s -trace kvm_guest_memfd_zap -D %s/log",
        qtest_get_arch(), serial, incoming, tmp);

    return vm_args(c, extra);
}

/* A VM that answers nobody before it has its files from @cpr */
static VM *start_successor(const VMKind *c, const char *cpr, const char *uri,
                           const char *serial)
{
    g_autofree char *incoming = g_strdup_printf(
        "%s -incoming cpr,addr.transport=socket,addr.type=unix,addr.path=%s",
        uri, cpr);
    g_autofree char *args = successor_args(c, incoming, serial);
    VM *vm = g_new0(VM, 1);

    vm->input = g_string_new(NULL);
    vm->qts = qtest_init_ext(NULL, args, NULL, false);
    VM_WAIT(vm_socket_listens(cpr));
    return vm;
}

static void set_mode(VM *vm, const char *mode)
{
    migrate_set_parameter_str(vm->qts, "mode", mode);
}

static void transfer(VM *vm, const char *main_path, const char *cpr)
{
    set_mode(vm, "cpr-transfer");
    qtest_qmp_assert_success(vm->qts, "{'execute': 'migrate', 'arguments':"
        "{'channels': [{'channel-type': 'main', 'addr': {"
        "'transport': 'socket', 'type': 'unix', 'path': %s}},"
        "{'channel-type': 'cpr', 'addr': {"
        "'transport': 'socket', 'type': 'unix', 'path': %s}}]}}",
        main_path, cpr);
}

static void start_guest(VM *vm, const VMKind *c)
{
    vm_fill_range(vm, DIMM, DIMM_LEN, 6);
    vm_start_count(vm, c->cpus, COUNT, COUNT_LEN);
}

/* Another file of the same name, while the old one may still be in memory */
static void replace_dimm(VM *vm)
{
    vm_wait_ready(vm);
    vm_remove_dimm(vm, 0);
    vm_plug_dimm(vm, 0, DIMM_LEN, DIMM);
    vm_wait_gmem_fds(vm, 2);
}

static void check_guest(VM *vm)
{
    vm->count = COUNT;
    vm_stop_count(vm);
    vm_check_range(vm, DIMM, DIMM_LEN, 6);
}

static void wait_running(VM *vm)
{
    while (true) {
        QDict *rsp = qtest_qmp_assert_success_ref(vm->qts,
                                                  "{'execute': 'query-status'}");
        bool running = qdict_get_bool(rsp, "running");

        qobject_unref(rsp);
        if (running) {
            return;
        }
        g_usleep(1000);
    }
}

static void assert_bound(VM *vm)
{
    vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    vm_assert_bound(vm, "mem0", DIMM_LEN);
}

/* That the first file came, and was not created, is all the same to KVM */
static void assert_prepared(void)
{
#ifndef HOST_AARCH64
    g_autofree char *log = g_strdup_printf("%s/log", tmp), *said = NULL;

    g_assert_true(g_file_get_contents(log, &said, NULL, NULL));
    g_assert_nonnull(strstr(said, "kvm_guest_memfd_zap"));
#endif
}

/* The files go on in a new QEMU, then what is in them in a third one */
static void test_transfer(const void *data)
{
    const VMKind *c = data;
    g_autofree char *cpr = g_strdup_printf("%s/cpr", tmp);
    g_autofree char *main_path = g_strdup_printf("%s/migration", tmp);
    g_autofree char *uri = g_strdup_printf("unix:%s", main_path);
    g_autofree char *serial = g_strdup_printf("%s/serial", tmp);
    VM *first = start(c, ""), *second, *third;

    replace_dimm(first);
    start_guest(first, c);
    assert_bound(first);
    second = start_successor(c, cpr, uri, serial);
    transfer(first, main_path, cpr);
    qtest_connect(second->qts);
    qtest_qmp_handshake(second->qts, NULL);
    wait_for_migration_complete(first->qts);
    wait_for_migration_complete(second->qts);
    wait_running(second);
    vm_quit(first);

    /* KVM binds a file to the VM that created it, which this is not */
    vm_assert_unbound(second, "ram0", "other-vm");
    vm_assert_unbound(second, "mem0", "other-vm");
    g_assert_cmpint(vm_count_gmem_fds(second), ==, 2);
    assert_prepared();
    second->serial = connect_to(serial);
    check_guest(second);
    vm_start_count(second, 1, COUNT, COUNT_LEN);
    unlink(main_path);

    third = start(c, "-incoming defer");
    set_mode(second, "normal");
    migrate_set_parameter_int(second->qts, "downtime-limit", 60 * 1000);
    migrate_incoming_qmp(third->qts, uri, NULL, "{}");
    migrate_qmp(second->qts, third->qts, uri, NULL, "{}");
    wait_for_migration_complete(second->qts);
    wait_for_migration_complete(third->qts);
    wait_running(third);
    assert_bound(third);
    check_guest(third);
    vm_quit(second);
    vm_quit(third);
    unlink(cpr);
    unlink(serial);
    unlink(main_path);
}

/* QEMU 10.2 has it */
static bool cpr_exec_exists(void)
{
    QTestState *qts = qtest_init("-machine none");
    QDict *rsp = qtest_qmp(qts, "{'execute': 'migrate-set-parameters',"
                           " 'arguments': {'mode': 'cpr-exec'}}");
    bool exists = qdict_haskey(rsp, "return");

    qobject_unref(rsp);
    qtest_quit(qts);
    return exists;
}

static void set_exec_command(VM *vm, const char *args)
{
    g_autofree char *line = g_strdup_printf("%s -display none %s",
                                            getenv("QTEST_QEMU_BINARY"), args);
    g_auto(GStrv) words = NULL;
    QList *command = qlist_new();

    g_assert_true(g_shell_parse_argv(line, NULL, &words, NULL));
    for (char **word = words; *word; word++) {
        qlist_append_str(command, *word);
    }
    qtest_qmp_assert_success(vm->qts, "{'execute': 'migrate-set-parameters',"
                             " 'arguments': {'cpr-exec-command': %p}}",
                             command);
}

/* The answer to a command, whatever happens meanwhile */
static QDict *ask(int qmp, const char *command)
{
    QDict *rsp = qmp_fd(qmp, "{'execute': %s}", command);

    while (!qdict_haskey(rsp, "return")) {
        g_assert_true(qdict_haskey(rsp, "event"));
        qobject_unref(rsp);
        rsp = qmp_fd_receive(qmp);
    }
    return rsp;
}

static bool runs(int qmp)
{
    QDict *rsp = ask(qmp, "query-status");
    bool running = qdict_get_bool(qdict_get_qdict(rsp, "return"), "running");

    qobject_unref(rsp);
    return running;
}

static void assert_other_vm(int qmp)
{
    QDict *rsp = ask(qmp, "query-guest-memfd");
    QListEntry *entry, *slot;
    int backends = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));

        QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "slots"), slot) {
            g_assert_cmpstr(qdict_get_str(qobject_to(QDict,
                                                     qlist_entry_obj(slot)),
                                          "state"), ==, "other-vm");
        }
        backends++;
    }
    g_assert_cmpint(backends, ==, 2);
    qobject_unref(rsp);
}

/* Another program in the same process has another VM, and the same files */
static void test_exec(const void *data)
{
    const VMKind *c = data;
    g_autofree char *serial = g_strdup_printf("%s/serial", tmp);
    g_autofree char *monitor = g_strdup_printf("%s/monitor", tmp);
    g_autofree char *path = g_strdup_printf("%s/exec", tmp);
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    g_autofree char *incoming = g_strdup_printf(
        "%s -qmp unix:%s,server=on,wait=off", uri, monitor);
    g_autofree char *args = successor_args(c, incoming, serial);
    VM *first = start(c, "");
    VM second = { .input = g_string_new(NULL) };
    g_autofree char *answer = NULL;
    int qmp;

    replace_dimm(first);
    start_guest(first, c);
    assert_bound(first);
    VM_WAIT(qtest_readq(first->qts, COUNT) >= 2);
    set_mode(first, "cpr-exec");
    set_exec_command(first, args);
    migrate_qmp(first->qts, NULL, uri, NULL, "{}");

    qmp = connect_to(monitor);
    qobject_unref(qmp_fd_receive(qmp));
    qobject_unref(ask(qmp, "qmp_capabilities"));
    VM_WAIT(runs(qmp));
    assert_other_vm(qmp);
    assert_prepared();
    second.serial = connect_to(serial);
    answer = vm_command(&second, "stop");
    g_assert_true(g_str_has_prefix(answer, "passes="));
    vm_check_range(&second, DIMM, DIMM_LEN, 6);
    /* The process is the one that it was, but does not speak to libqtest */
    qtest_quit(first->qts);
    close(first->serial);
    g_string_free(first->input, true);
    g_free(first);
    close(second.serial);
    close(qmp);
    g_string_free(second.input, true);
    unlink(serial);
    unlink(monitor);
    unlink(path);
}

typedef struct Refusal {
    const char *name;
    const char *accel;
    const char *backend;        /* what that of the first VM has not */
    const char *says;
} Refusal;

static const Refusal refusals[] = {
    { "tcg", "-accel tcg -cpu max", "", "with -accel kvm only" },
    { "kvm-bind", "-accel kvm -cpu " VM_CPU, "kvm-bind=on,",
      "'kvm-bind' cannot be on: the guest_memfd came by CPR" },
};

/* A QEMU that cannot use the files says so and ends; the first VM goes on */
static void test_refused(const void *data)
{
    static const char *not_failed[] = { "completed", NULL };
    const Refusal *r = data;
    const VMKind *c = &vm_kinds[0];
    g_autofree char *cpr = g_strdup_printf("%s/cpr", tmp);
    g_autofree char *main_path = g_strdup_printf("%s/migration", tmp);
    g_autofree char *args = vm_args(c, r->accel);
    g_auto(GStrv) parts = g_strsplit(args, "id=ram0,", 2);
    g_autofree char *id = g_strdup_printf("id=ram0,%s", r->backend);
    g_autofree char *all = g_strjoinv(id, parts);
    g_autofree char *line = g_strdup_printf(
        "exec timeout 600 %s %s -display none -nodefaults"
        " -bios tests/guest-memfd/payload-%s.bin -incoming unix:%s"
        " -incoming cpr,addr.transport=socket,addr.type=unix,addr.path=%s",
        getenv("QTEST_QEMU_BINARY"), all, qtest_get_arch(), main_path, cpr);
    char *argv[] = { (char *)"/bin/sh", (char *)"-c", line, NULL };
    g_autofree char *said = g_malloc0(4096);
    VM *first = start(c, "");
    size_t len = 0;
    ssize_t got;
    int err, status;
    GPid second;

    vm_wait_ready(first);
    start_guest(first, c);
    g_assert_true(g_spawn_async_with_pipes(NULL, argv, NULL,
                                           G_SPAWN_DO_NOT_REAP_CHILD, NULL,
                                           NULL, &second, NULL, NULL, &err,
                                           NULL));
    VM_WAIT(vm_socket_listens(cpr));
    transfer(first, main_path, cpr);
    while ((got = read(err, said + len, 4095 - len)) > 0) {
        len += got;
    }
    close(err);
    g_test_message("%s", said);
    g_assert_cmpint(waitpid(second, &status, 0), ==, second);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    g_assert_nonnull(strstr(said, "memory backend 'ram0'"));
    g_assert_nonnull(strstr(said, r->says));

    wait_for_migration_status(first->qts, "failed", not_failed);
    wait_running(first);
    check_guest(first);
    vm_quit(first);
    unlink(cpr);
    unlink(main_path);
}

/* The RAM itself goes to the file, as no guest_memfd survives its QEMU */
static void reboot_vm(const VMKind *c, bool ignore_shared)
{
    g_autofree char *path = g_strdup_printf("%s/reboot", tmp);
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    VM *first = start(c, ""), *second;

    vm_wait_ready(first);
    start_guest(first, c);
    set_mode(first, "cpr-reboot");
    migrate_set_capability(first->qts, "x-ignore-shared", ignore_shared);
    migrate_qmp(first->qts, NULL, uri, NULL, "{}");
    wait_for_migration_complete(first->qts);
    /* Whatever its mode, a migration that is over leaves bound memory */
    qtest_qmp_assert_success(first->qts, "{'execute': 'cont'}");
    vm_wait_settled(first, "ram0");
    vm_wait_settled(first, "mem0");
    assert_bound(first);
    vm_quit(first);

    second = start(c, "-incoming defer");
    set_mode(second, "cpr-reboot");
    migrate_set_capability(second->qts, "x-ignore-shared", ignore_shared);
    migrate_incoming_qmp(second->qts, uri, NULL, "{}");
    wait_for_migration_complete(second->qts);
    qtest_qmp_assert_success(second->qts, "{'execute': 'cont'}");
    assert_bound(second);
    check_guest(second);
    vm_quit(second);
    unlink(path);
}

static void test_reboot(const void *data)
{
    reboot_vm(data, false);
}

static void test_ignore_shared(const void *data)
{
    reboot_vm(data, true);
}

int main(int argc, char **argv)
{
    g_autofree char *log = NULL;
    int ret;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    vm_add_tests("cpr/transfer", test_transfer);
    if (cpr_exec_exists()) {
        vm_add_tests("cpr/exec", test_exec);
    }
    vm_add_tests("cpr/reboot", test_reboot);
    vm_add_tests("cpr/ignore-shared", test_ignore_shared);

    for (int i = 0; i < ARRAY_SIZE(refusals); i++) {
        g_autofree char *name = g_strdup_printf("/guest-memfd/cpr/refused/%s",
                                                refusals[i].name);

        /* A QEMU may have been built with KVM alone */
        if (!g_str_equal(refusals[i].name, "tcg") || qtest_has_accel("tcg")) {
            qtest_add_data_func(name, &refusals[i], test_refused);
        }
    }

    ret = g_test_run();
    log = g_strdup_printf("%s/log", tmp);
    unlink(log);
    rmdir(tmp);
    return ret;
}
