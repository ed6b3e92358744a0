/*
 * KVM denies, in the middle of something, what it is asked for about a
 * memslot of guest_memfd RAM: nothing is lost, and the VM goes on, or is
 * stopped at once where it has no memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ptrace.h>
#include <sys/wait.h>
#include "qemu/units.h"
#include "guest-memfd/plug.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"

/* Several cells of 128 MiB, and a rest */
#define RAM "600M"
#define RAM_SIZE (600 * MiB)
#define DIMM_AT (8 * GiB)

static char *tmp;

static VM *start(const char *accel, const char *extra)
{
    return vm_start("-accel kvm%s -machine " VM_TYPE ",memory-backend=ram0"
                    " -m " RAM ",slots=2,maxmem=16G -object"
                    " memory-backend-guest-memfd,id=ram0,size=" RAM " %s",
                    accel, extra);
}

typedef struct Denied {
    const char *name;
    const char *accel;
    const char *faults;         /* from the start on */
    const char *refused;        /* when the migration starts */
} Denied;

/*
 * Start a migration that sends no more than its first pass before it is told
 * to, and wait until that has sent the guest's first 128 MiB.
 */
static void migrate_past(VM *src, VM *dst, const char *uri)
{
    const uint64_t sent = 128 * MiB;

    /* What the pass has to do then takes minutes */
    vm_fill_range(src, 400 * MiB, 32 * MiB, 1);
    migrate_set_parameter_int(src->qts, "downtime-limit", 1);
    migrate_set_parameter_int(src->qts, "max-bandwidth", 200 * KiB);
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    VM_WAIT(read_ram_property_int(src->qts, "dirty-sync-count") > 0 &&
            read_ram_property_int(src->qts, "remaining") < RAM_SIZE - sent);
    migrate_set_parameter_int(src->qts, "max-bandwidth", 4096);
    g_assert_cmpint(read_ram_property_int(src->qts, "dirty-sync-count"), ==, 1);
}

/* Until vm_faults_end(), vm_set_faults() reaches both */
static void start_pair(const Denied *c, VM **src, VM **dst)
{
    vm_faults_begin(c->faults);
    *src = start(c->accel, "");
    vm_wait_ready(*src);
    *dst = start("", "-incoming defer");
}

static void migrate_to_end(VM *src, VM *dst)
{
    g_assert_cmpint(read_ram_property_int(src->qts, "dirty-sync-count"), ==, 1);
    migrate_set_parameter_int(src->qts, "max-bandwidth", 0);
    migrate_set_parameter_int(src->qts, "downtime-limit", 60 * 1000);
    wait_for_migration_complete(src->qts);
    wait_for_migration_complete(dst->qts);
}

/*
 * KVM refuses to delete a memslot when a migration starts, and does so later,
 * when something else happens.  What the guest wrote in between, unlogged, to
 * a page that had been sent already arrives.
 */
static void test_delete(const void *data)
{
    const Denied *c = data;
    const uint64_t word = 64 * MiB;
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    VM *src, *dst;

    start_pair(c, &src, &dst);
    vm_write64(src, word, 0x1111);

    vm_set_faults(c->refused);
    migrate_past(src, dst, uri);
    g_assert_cmpint(vm_count_slots(src, "ram0", "bound"), >, 0);

    vm_write64(src, word, 0x2222);
    vm_set_faults("");
    vm_do(src, "pam on");
    vm_assert_unbound(src, "ram0", "dirty-log");
    migrate_to_end(src, dst);
    vm_faults_end();
    g_assert_cmphex(vm_read64(dst, word), ==, 0x2222);
    vm_quit(dst);
    vm_quit(src);
}

static const Denied deleted[] = {
    { "bitmap", "", "", "delete=12" },
    /* Where KVM does not begin a log with all pages, nobody hides a mistake */
    { "clean-bitmap", "", "protect=0", "delete=12" },
    { "dirty-ring", ",dirty-ring-size=4096", "", "delete=12" },
};

/* RAM at 0xd0000 to 0xd7fff shows, or not: one change of one register of q35 */
static void set_pam(VM *vm, bool on)
{
    qtest_outl(vm->qts, 0xcf8, 0x80000090);
    qtest_outb(vm->qts, 0xcfc + 3, on ? 0x33 : 0);
}

/*
 * A memslot goes during a migration, and its memory stays: here, RAM below
 * the ROMs.  What the guest wrote there last arrives, whether KVM logged it or
 * would not log.
 */
static void test_hidden(const void *data)
{
    const Denied *c = data;
    const uint64_t word = 0xd0000;
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    VM *src, *dst;

    start_pair(c, &src, &dst);
    set_pam(src, true);
    vm_write64(src, word, 0x1111);

    vm_set_faults(c->refused);
    migrate_past(src, dst, uri);
    vm_write64(src, word, 0x2222);
    set_pam(src, false);
    vm_set_faults("");
    migrate_to_end(src, dst);
    vm_faults_end();
    set_pam(dst, true);
    g_assert_cmphex(vm_read64(dst, word), ==, 0x2222);
    vm_quit(dst);
    vm_quit(src);
}

/* A memory transaction that is not about RAM: q35's AHCI shows its registers */
static void map_a_bar(VM *vm)
{
    qtest_outl(vm->qts, 0xcf8, 0x8000fa24);
    qtest_outl(vm->qts, 0xcfc, 0xfebf0000);
    qtest_outl(vm->qts, 0xcf8, 0x8000fa04);
    qtest_outw(vm->qts, 0xcfc, 6);
}

/*
 * KVM refuses to log a memslot when a migration starts.  The next memory
 * transaction, whatever it is about, asks again, and the migration of an idle
 * guest then ends.
 */
static void test_log(void)
{
    const Denied c = { "log", "", "", "" };
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    VM *src, *dst;

    start_pair(&c, &src, &dst);
    vm_write64(src, 64 * MiB, 0x1111);
    /* A pass that takes longer than QEMU needs to know its bandwidth */
    vm_fill_range(src, 400 * MiB, 8 * MiB, 1);
    migrate_set_parameter_int(src->qts, "max-bandwidth", 16 * MiB);
    vm_set_faults("log=12");
    migrate_set_parameter_int(src->qts, "downtime-limit", 1);
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    VM_WAIT(read_ram_property_int(src->qts, "dirty-sync-count") > 3);
    vm_set_faults("");
    map_a_bar(src);
    wait_for_migration_complete(src->qts);
    wait_for_migration_complete(dst->qts);
    vm_faults_end();
    g_assert_cmphex(vm_read64(dst, 64 * MiB), ==, 0x1111);
    vm_quit(dst);
    vm_quit(src);
}

/*
 * KVM keeps a memslot that must go: the VM is stopped.  What is plugged there
 * is held back, and the VM can still be saved.
 */
static void test_kept(void)
{
    VM *vm;

    vm_faults_begin("");
    vm = start("", "");
    vm_wait_ready(vm);
    vm_plug_dimm(vm, 0, 64 * MiB, DIMM_AT);
    vm_set_faults("delete=12");
    vm_remove_dimm(vm, 0);
    VM_WAIT(vm_has_status(vm, "internal-error"));
    vm_add_backend(vm, "memory-backend-memfd", 1, 64 * MiB);
    vm_add_dimm(vm, 1, DIMM_AT);
    migrate_qmp(vm->qts, NULL, "exec:cat > /dev/null", NULL, "{}");
    wait_for_migration_complete(vm->qts);
    vm_faults_end();
    vm_quit(vm);
}

/*
 * The main thread does nothing, and has not got the BQL, until it may go on.
 * Returns: false if this host allows nobody to stop a thread
 */
static bool hold_main_thread(VM *vm)
{
    pid_t pid = qtest_pid(vm->qts);
    uint64_t calls = 0;
    int status;

    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL)) {
        g_assert_cmpint(errno, ==, EPERM);
        return false;
    }
    while (true) {
        /* It has read the order, or has given the BQL back */
        VM_WAIT(vm_count_calls(FAULT_delete) > calls + 2);
        g_assert_cmpint(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), ==, 0);
        g_assert_cmpint(waitpid(pid, &status, __WALL), ==, pid);
        calls = vm_count_calls(FAULT_delete);
        for (int i = 0; i < 100; i++) {
            if (vm_count_calls(FAULT_delete) > calls + 2) {
                return true;
            }
            g_usleep(1000);
        }
        g_assert_cmpint(ptrace(PTRACE_CONT, pid, NULL, NULL), ==, 0);
    }
}

/* Whether a vCPU was in the guest after KVM had refused a memslot */
static bool has_run_on(const char *log)
{
    g_autofree char *text = NULL;
    const char *refused;

    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    refused = strstr(text, "ret=-12");
    g_assert_nonnull(refused);
    return strstr(refused, "kvm_run_exit");
}

/*
 * A vCPU moves the edge of RAM, and KVM takes no memslot in place of the one
 * that had to go.  No vCPU enters the guest again, for which that is no memory,
 * however late the main thread comes to stop the VM.
 */
static void test_lost(void)
{
    g_autofree char *log = g_strdup_printf("%s/log", tmp);
    g_autofree char *args = g_strdup_printf("-D %s -trace kvm_run_exit"
                                            " -trace kvm_set_user_memory", log);
    const char *command = "pam times 1000000000\n";
    VM *vm;

    vm_faults_begin("");
    vm = start("", args);
    vm_wait_ready(vm);
    g_assert_cmpint(write(vm->serial, command, strlen(command)), ==,
                    strlen(command));
    if (!hold_main_thread(vm)) {
        g_test_skip("ptrace() is not permitted here");
        vm_faults_end();
        vm_quit(vm);
        return;
    }
    vm_set_faults("bind=12 hva=12");
    VM_WAIT(vm_count_failed_calls());
    /* If it does run on, then at once */
    for (int i = 0; i < 100 && !has_run_on(log); i++) {
        g_usleep(10000);
    }
    g_assert_false(has_run_on(log));
    g_assert_cmpint(ptrace(PTRACE_DETACH, qtest_pid(vm->qts), NULL, NULL),
                    ==, 0);
    VM_WAIT(vm_has_status(vm, "internal-error"));
    g_assert_false(has_run_on(log));
    vm_faults_end();
    vm_quit(vm);
    unlink(log);
}

static const Denied hidden[] = {
    { "bitmap", "", "protect=0", "protect=0" },
    { "dirty-ring", ",dirty-ring-size=4096", "", " " },
    { "unlogged", "", "", "log=12" },
};

static void add(const char *group, const Denied *c, GTestDataFunc func)
{
    g_autofree char *path = g_strdup_printf("/guest-memfd/%s/%s", group,
                                            c->name);

    if (!*c->accel || kvm_dirty_ring_supported()) {
        qtest_add_data_func(path, c, func);
    }
}

int main(int argc, char **argv)
{
    g_autofree char *socket = NULL;
    int ret;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    qtest_add_func("/guest-memfd/denied/log", test_log);
    qtest_add_func("/guest-memfd/denied/kept", test_kept);
    qtest_add_func("/guest-memfd/denied/lost", test_lost);
    for (int i = 0; i < ARRAY_SIZE(deleted); i++) {
        add("denied/delete", &deleted[i], test_delete);
    }
    for (int i = 0; i < ARRAY_SIZE(hidden); i++) {
        add("denied/hidden", &hidden[i], test_hidden);
    }
    ret = g_test_run();
    socket = g_strdup_printf("%s/migration", tmp);
    unlink(socket);
    rmdir(tmp);
    return ret;
}
