/*
 * Memslots of guest_memfd RAM are switched in steps, and those that do not
 * change are left alone: what the states in between are, and what can happen
 * in the middle.  guest-memfd-denied-test.c has what KVM may do wrong there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "guest-memfd/file.h"
#include "guest-memfd/plug.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"

/* Several cells of 128 MiB, and a rest */
#define RAM "600M"
#define RAM_SIZE (600 * MiB)
#define DIMM_AT (8 * GiB)
#define WORD VM_AT(500 * MiB)

static char *tmp;

static VM *start(const char *extra)
{
    return vm_start("-machine " VM_TYPE ",memory-backend=ram0"
                    " -m " RAM ",slots=2,maxmem=16G -object"
                    " memory-backend-guest-memfd,id=ram0,size=" RAM " %s",
                    extra);
}

/* Memslots of the main address space; some ranges consist of several */
static int count_memslots(VM *vm)
{
    g_autoptr(QDict) info = vm_info(vm, "ram0");
    QListEntry *entry;
    int n = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "slots"), entry) {
        QDict *slot = qobject_to(QDict, qlist_entry_obj(entry));

        if (qdict_get_int(slot, "address-space") == 0) {
            n += qdict_get_int(slot, "memslots");
        }
    }
    return n;
}

/* RAM from 1 MiB on has no gap there, and is one range to the user */
static void test_cells(void)
{
    VM *vm = start("");
    int n;

    vm_wait_ready(vm);
    n = count_memslots(vm);
    g_assert_cmpint(n, >=, 3);
    g_assert_cmpint(vm_count_slots(vm, "ram0", NULL), <, n);
    vm_assert_bound(vm, "ram0", RAM_SIZE);
    vm_quit(vm);
}

/* Something is logged until it is cancelled */
static void start_logging(VM *vm)
{
    migrate_set_parameter_int(vm->qts, "max-bandwidth", 4096);
    migrate_qmp(vm->qts, NULL, "exec:cat > /dev/null", NULL, "{}");
    while (read_ram_property_int(vm->qts, "dirty-sync-count") < 1) {
        g_usleep(1000);
    }
    vm_assert_unbound(vm, "ram0", "dirty-log");
}

static void stop_logging(VM *vm)
{
    migrate_cancel(vm->qts);
    wait_for_migration_status(vm->qts, "cancelled", NULL);
}

/* QEMU ends the log of a VM that is stopped when that goes on */
static void assert_still_logged(VM *vm)
{
    vm_assert_unbound(vm, "ram0", "dirty-log");
}

static void qmp(VM *vm, const char *command)
{
    qtest_qmp_assert_success(vm->qts, "{'execute': %s}", command);
}

/* Each memslot is switched once each way, however many steps it takes */
static void test_steps(void)
{
    VM *vm = start("");
    int n;

    vm_wait_ready(vm);
    n = count_memslots(vm);
    vm_do(vm, "count %" PRIu64 " %" PRIu64, VM_AT(128 * MiB), 16 * MiB);
    for (int i = 1; i <= 3; i++) {
        start_logging(vm);
        stop_logging(vm);
        vm_wait_settled(vm, "ram0");
        vm_assert_bound(vm, "ram0", RAM_SIZE);
        g_assert_cmpint(vm_info_number(vm, "ram0", "switches"), ==, 2 * n * i);
        g_assert_cmpint(vm_info_number(vm, "ram0", "max-inhibit-us"), >, 0);
    }
    g_free(vm_command(vm, "stop"));
    vm_quit(vm);
}

/*
 * Memslots that were bound again have lost their page tables.  Where KVM takes
 * neighbours of a page from QEMU's, these are filled with what is there.
 */
static void test_mapped_again(void)
{
    VM *vm = start("");
    GmemFile *file = gmem_file_open(vm, RAM_SIZE);
    uint64_t resident;

    vm_wait_ready(vm);
    vm_fill_range(vm, VM_AT(300 * MiB), 256 * MiB, 1);
    resident = gmem_file_resident(file, 0, RAM_SIZE);
    g_assert_cmpint(resident, <, 300 * MiB);
    g_assert_cmpint(gmem_smaps(vm, "Rss"), <, 64 * MiB);
    start_logging(vm);
    stop_logging(vm);
    vm_wait_settled(vm, "ram0");
    if (vm_prealloc_maps()) {
        VM_WAIT(gmem_smaps(vm, "Rss") >= resident);
    }
    g_assert_cmpint(gmem_file_resident(file, 0, RAM_SIZE), ==, resident);
    vm_check_range(vm, VM_AT(300 * MiB), 256 * MiB, 1);
    gmem_file_close(file);
    vm_quit(vm);
}

/*
 * What is still to be bound when a VM is stopped waits until it goes on.  It
 * is stopped before the first step, or this is tried again.
 */
static void test_paused(void)
{
    VM *vm = start("");

    vm_wait_ready(vm);
    do {
        vm_wait_settled(vm, "ram0");
        start_logging(vm);
        qmp(vm, "stop");
        stop_logging(vm);
        /* The log ends with the first of these; the other follows at once */
        qtest_qmp_send(vm->qts, "{'execute': 'cont'}");
        qtest_qmp_send(vm->qts, "{'execute': 'stop'}");
        for (int i = 0; i < 2; i++) {
            qobject_unref(qtest_qmp_receive(vm->qts));
        }
        if (vm_count_slots(vm, "ram0", "switching")) {
            break;
        }
        /* It was all bound by then */
        qmp(vm, "cont");
    } while (true);
    /* Time for many steps */
    g_usleep(100 * 1000);
    g_assert_cmpint(vm_count_slots(vm, "ram0", "switching"), >, 0);
    qmp(vm, "cont");
    vm_wait_settled(vm, "ram0");
    vm_assert_bound(vm, "ram0", RAM_SIZE);
    vm_quit(vm);
}

/* A VM that is stopped stays as it is, and can be used as it is */
static void test_stopped(void)
{
    VM *vm = start("");

    vm_wait_ready(vm);
    vm_write64(vm, WORD, 1);
    start_logging(vm);
    qmp(vm, "stop");
    stop_logging(vm);
    assert_still_logged(vm);

    /* Logging again, before the memory was bound again */
    start_logging(vm);
    stop_logging(vm);
    assert_still_logged(vm);

    /* A DIMM comes and goes meanwhile, and the machine is reset */
    vm_plug_dimm(vm, 0, 300 * MiB, DIMM_AT);
    vm_assert_bound(vm, "mem0", 300 * MiB);
    assert_still_logged(vm);
    qtest_writeq(vm->qts, DIMM_AT, 42);
    qmp(vm, "system_reset");
    vm_remove_dimm(vm, 0);
    assert_still_logged(vm);

    qmp(vm, "cont");
    vm_wait_ready(vm);
    vm_wait_settled(vm, "ram0");
    vm_assert_bound(vm, "ram0", RAM_SIZE);
    g_assert_cmphex(vm_read64(vm, WORD), ==, 1);
    vm_write64(vm, WORD, 2);
    g_assert_cmphex(qtest_readq(vm->qts, WORD), ==, 2);
    vm_quit(vm);
}

/* QEMU ends in the middle of it all */
static void test_quit(void)
{
    for (int i = 0; i < 4; i++) {
        VM *vm = start("");

        vm_wait_ready(vm);
        start_logging(vm);
        if (i & 1) {
            stop_logging(vm);
        }
        if (i & 2) {
            qmp(vm, "stop");
        }
        vm_quit(vm);
    }
}

/*
 * What KVM was told about RAM above 1 MiB, by a trace of QEMU's: nothing when
 * PAM is opened and closed, when a PCI device's window moves, at a reset, and
 * when a DIMM comes and goes.
 */
static int count_told(const char *log, uint64_t from)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    int n = 0;

    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    lines = g_strsplit(text, "\n", 0);
    for (char **line = lines; *line; line++) {
        char *gpa = strstr(*line, "kvm_guest_memfd_") ?
                    strstr(*line, "ram0 slot ") : NULL;

        gpa = gpa ? strstr(gpa, "gpa ") : NULL;
        n += gpa && g_ascii_strtoull(gpa + 4, NULL, 0) >= from;
    }
    return n;
}

#ifdef HOST_AARCH64
#define REMAPPED ""
#else
#define REMAPPED "-device edu,addr=5"
#endif

static void test_unchanged(void)
{
    g_autofree char *log = g_strdup_printf("%s/log", tmp);
    g_autofree char *args = g_strdup_printf(
        "%s -D %s -trace kvm_guest_memfd_bind -trace kvm_guest_memfd_unbind"
        " -trace kvm_guest_memfd_map", REMAPPED, log);
    VM *vm = start(args);
    const uint64_t from = VM_RAM_START + MiB;
    int told;

    vm_wait_ready(vm);
    vm_write64(vm, WORD, 1);
    told = count_told(log, from);
    g_assert_cmpint(told, >, 0);
#ifndef HOST_AARCH64
    vm_do(vm, "pam on");
    vm_do(vm, "pam off");
    vm_do(vm, "pam on");
    for (int i = 0; i < 5; i++) {
        /* BAR 0 of the device in slot 5, and its memory space */
        qtest_outl(vm->qts, 0xcf8, 0x80002810);
        qtest_outl(vm->qts, 0xcfc, 0xc0000000 + i * 256 * MiB / 8);
        qtest_outl(vm->qts, 0xcf8, 0x80002804);
        qtest_outl(vm->qts, 0xcfc, i % 2 ? 0 : 2);
    }
#endif
    for (int i = 0; i < 3; i++) {
        vm_plug_dimm(vm, 0, 64 * MiB, DIMM_AT);
        vm_remove_dimm(vm, 0);
        vm_reset(vm);
    }
    g_assert_cmpint(count_told(log, from), ==, told);
    vm_assert_bound(vm, "ram0", RAM_SIZE);
    g_assert_cmphex(vm_read64(vm, WORD), ==, 1);
    vm_quit(vm);
    unlink(log);
}

/* Memslots that KVM was told to log, as a trace has it */
static int count_logged(const char *log)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    int n = 0;

    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    lines = g_strsplit(text, "\n", 0);
    for (char **line = lines; *line; line++) {
        n += strstr(*line, "AddrSpace#0 ") && strstr(*line, "flags=0x1 ");
    }
    return n;
}

/*
 * Before a migration logs, all memslots are mapped, without a log: the log is
 * then a flag of memslots that stay.  Seen in what KVM was told.
 */
static void test_prepared(const void *data)
{
    g_autofree char *log = g_strdup_printf("%s/log", tmp);
    g_autofree char *args = g_strdup_printf("-D %s -trace kvm_set_user_memory"
                                            " -trace kvm_guest_memfd_map", log);
    g_autofree char *before = NULL, *after = NULL;
    g_auto(GStrv) lines = NULL;
    int mapped = 0, memslots;
    VM *vm = start(args);

    vm_wait_ready(vm);
    memslots = count_memslots(vm);
    g_assert_true(g_file_get_contents(log, &before, NULL, NULL));
    if (g_str_equal(data, "dirty-rate")) {
        qtest_qmp_assert_success(vm->qts, "{'execute': 'calc-dirty-rate',"
                                 "'arguments': {'calc-time': 1,"
                                 " 'mode': 'dirty-bitmap'}}");
        VM_WAIT(count_logged(log) >= memslots);
    } else {
        start_logging(vm);
    }
    g_assert_true(g_file_get_contents(log, &after, NULL, NULL));
    lines = g_strsplit(after + strlen(before), "\n", 0);
    for (char **line = lines; *line; line++) {
        if (strstr(*line, "kvm_guest_memfd_map")) {
            /* The line before says how */
            g_assert_true(line > lines);
            g_assert_nonnull(strstr(line[-1], "flags=0x0 "));
            mapped++;
        }
    }
    g_assert_cmpint(mapped, ==, memslots);
    g_assert_cmpint(count_logged(log), >=, mapped);
    vm_quit(vm);
    unlink(log);
}

#ifndef HOST_AARCH64
/* PAM opens and closes shadow RAM below 1 MiB; resets go in between */
static void test_pam_resets(const void *data)
{
    const VMKind *c = data;
    VM *vm = vm_start("-machine %s,memory-backend=ram0 -smp %d -m " VM_RAM " "
                      VM_BACKEND, c->machine, c->cpus);
    uint64_t open, closed;

    vm_wait_ready(vm);
    vm_do(vm, "pam on");
    vm_fill(vm, 5);
    vm_fill_range(vm, 0xc0000, 0x40000, 6);
    open = vm_info_number(vm, "ram0", "bound");
    vm_do(vm, "pam off");
    closed = vm_info_number(vm, "ram0", "bound");
    g_assert_cmpint(open - closed, >=, 128 * KiB);

    for (int i = 0; i < 20; i++) {
        vm_do(vm, i % 2 ? "pam on" : "pam off");
        qmp(vm, "system_reset");
        qtest_qmp_eventwait(vm->qts, "RESET");
        vm_wait_ready(vm);
        vm_do(vm, "pam off");
        g_assert_cmpint(vm_info_number(vm, "ram0", "bound"), ==, closed);
        vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
        vm_do(vm, "pam on");
        g_assert_cmpint(vm_info_number(vm, "ram0", "bound"), ==, open);
        vm_check_range(vm, 0xc0000, 0x40000, 6);
        vm_check_range(vm, 0x200000, 0x100000, 5);
    }
    vm_check_range(vm, 0x200000, VM_RAM_SIZE - 2 * MiB, 5);
    vm_quit(vm);
}
#endif

int main(int argc, char **argv)
{
    g_autofree char *socket = NULL;
    int ret;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    qtest_add_func("/guest-memfd/switch/cells", test_cells);
    qtest_add_func("/guest-memfd/switch/steps", test_steps);
    qtest_add_func("/guest-memfd/switch/mapped-again", test_mapped_again);
    qtest_add_func("/guest-memfd/switch/stopped", test_stopped);
    qtest_add_func("/guest-memfd/switch/paused", test_paused);
    qtest_add_func("/guest-memfd/switch/quit", test_quit);
    qtest_add_func("/guest-memfd/switch/unchanged", test_unchanged);
    qtest_add_data_func("/guest-memfd/switch/prepared/migration", "migration",
                        test_prepared);
    qtest_add_data_func("/guest-memfd/switch/prepared/dirty-rate", "dirty-rate",
                        test_prepared);
#ifndef HOST_AARCH64
    vm_add_tests("switch/pam-resets", test_pam_resets);
#endif
    ret = g_test_run();
    socket = g_strdup_printf("%s/migration", tmp);
    unlink(socket);
    rmdir(tmp);
    return ret;
}
