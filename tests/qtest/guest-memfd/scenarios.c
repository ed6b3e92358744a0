/*
 * What a VM goes through while the kernel refuses calls (the fault sweep)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "../../guest-memfd/pattern.h"
#include "../migration/migration-qmp.h"
#include "../migration/migration-util.h"
#include "plug.h"
#include "scenarios.h"

/* Between them are the rings of drivers, before them what PAM opens */
#define KEPT        VM_AT(12 * MiB)
#define KEPT_LEN    (4 * MiB)
#define FREE        VM_AT(16 * MiB)
#define FREE_LEN    (8 * MiB)
#define DIMM_AT     (4 * GiB)
#define DIMM_LEN    (8 * MiB)

#define RAM         " -m 32M,slots=2,maxmem=8G"
#define GMEM        " -object memory-backend-guest-memfd,id=ram0,size=32M"
#define MACHINE     "-machine " VM_TYPE ",memory-backend=ram0" RAM GMEM

char *scenario_tmp;

/*
 * The VM
 */

static void keep(SweptVM *swept)
{
    vm_fill_range(swept->vm, KEPT, KEPT_LEN, swept->seed + 1);
    swept->seed += !swept->vm->stopped;
}

static int count_fds(VM *vm)
{
    g_autoptr(GArray) fds = vm_list_fds(vm, "");

    return fds->len;
}

static char *make_disk(void)
{
    g_autofree char *path = g_strdup_printf("%s/disk.qcow2", scenario_tmp);
    g_autofree char *create = g_strdup_printf("%s create -q -f qcow2 %s 64M",
                                              getenv("QTEST_QEMU_IMG"), path);
    int status;

    g_assert_true(g_spawn_command_line_sync(create, NULL, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
    return g_steal_pointer(&path);
}

static void start(const Scenario *s, SweptVM *swept)
{
    if (s->disk) {
        g_autofree char *disk = make_disk();

        swept->vm = vm_start("%s -drive if=none,id=disk0,file=%s", s->args,
                             disk);
    } else {
        swept->vm = vm_start("%s", s->args);
    }
    swept->vm->may_stop = true;
    vm_wait_ready(swept->vm);
    swept->running = true;
    keep(swept);
}

void swept_start(const Scenario *s, SweptVM *swept)
{
    if (s->boots) {
        return;
    }
    if (s->faulty_target) {
        vm_faults_end();
    }
    start(s, swept);
    vm_faults_begin(NULL);
    if (strstr(s->args, "virtio-balloon")) {
        swept->driver = balloon_start(swept->vm);
    } else if (strstr(s->args, "virtio-mem")) {
        swept->driver = virtio_mem_start(swept->vm);
    }
    swept->used = false;
    swept->refused = 0;
    swept->files = vm_count_gmem_fds(swept->vm);
    swept->slots = vm_count_slots(swept->vm, "ram0", "bound");
    /* What QEMU opens once is open after the first time */
    s->act(s, swept);
    swept_check(swept);
    g_assert_cmpint(swept->refused, ==, 0);
    swept->fds = count_fds(swept->vm);
}

void swept_quit(SweptVM *swept)
{
    if (swept->driver) {
        g_clear_pointer(&swept->driver, virtio_free);
    }
    vm_quit(swept->vm);
    swept->vm = NULL;
}

/* What the guest would see, read by the host, since the guest is stopped */
static void check_stopped(SweptVM *swept)
{
    g_autofree uint64_t *words = g_malloc(KEPT_LEN);

    qtest_bufread(swept->vm->qts, KEPT, words, KEPT_LEN);
    for (uint64_t i = 0; i < KEPT_LEN; i += 8) {
        g_assert_cmphex(words[i / 8], ==,
                        guest_memfd_pattern(KEPT + i, swept->seed));
    }
}

void swept_check(SweptVM *swept)
{
    VM *vm = swept->vm;

    if (!vm_has_status(vm, "internal-error")) {
        if (!vm_has_status(vm, "running")) {
            qtest_qmp_assert_success(vm->qts, "{'execute': 'cont'}");
        }
        vm_check_range(vm, KEPT, KEPT_LEN, swept->seed);
        vm_fill_range(vm, FREE, FREE_LEN, swept->seed);
        vm_check_range(vm, FREE, FREE_LEN, swept->seed);
    }
    vm->stopped = vm_has_status(vm, "internal-error");
    if (vm->stopped) {
        check_stopped(swept);
    }
}

bool swept_is_as_new(const Scenario *s, SweptVM *swept)
{
    if (swept->vm->stopped || swept->used || s->boots) {
        return false;
    }
    vm_wait_gmem_fds(swept->vm, swept->files);
#ifndef HOST_AARCH64
    /* What KVM refused is tried again with the next transaction */
    vm_do(swept->vm, "pam on");
    vm_do(swept->vm, "pam off");
#endif
    vm_wait_settled(swept->vm, "ram0");
    VM_WAIT(count_fds(swept->vm) <= swept->fds);
    return vm_count_slots(swept->vm, "ram0", "bound") == swept->slots;
}

/* Returns: false if QEMU refused, in a sentence */
static bool is_done(SweptVM *swept, QDict *answer)
{
    bool done = qdict_haskey(answer, "return");

    if (!done) {
        g_test_message("refused: %s",
                       qdict_get_str(qdict_get_qdict(answer, "error"), "desc"));
        swept->refused++;
    }
    qobject_unref(answer);
    return done;
}

G_GNUC_PRINTF(3, 0)
static bool try(SweptVM *swept, VM *vm, const char *fmt, ...)
{
    QDict *answer;
    va_list ap;

    va_start(ap, fmt);
    answer = qtest_vqmp(vm->qts, fmt, ap);
    va_end(ap);
    return is_done(swept, answer);
}

/*
 * Scenarios
 */

static void boot(const Scenario *s, SweptVM *swept)
{
    start(s, swept);
}

static bool add_backend(const Scenario *s, SweptVM *swept)
{
    return try(swept, swept->vm, "{'execute': 'object-add', 'arguments': {"
               "'qom-type': 'memory-backend-guest-memfd', 'id': 'mem0',"
               "'size': %" PRIu64 ", 'prealloc': true, 'kvm-bind': %s}}",
               (uint64_t)DIMM_LEN, strstr(s->name, "bind-on") ? "on" : "auto");
}

static void object(const Scenario *s, SweptVM *swept)
{
    for (int i = 0; i < 2; i++) {
        if (add_backend(s, swept)) {
            vm_del_backend(swept->vm, 0);
        }
    }
}

/* Returns: false if QEMU refused */
static bool plug(const Scenario *s, SweptVM *swept)
{
    VM *vm = swept->vm;

    if (!add_backend(s, swept)) {
        return false;
    }
    if (!is_done(swept, vm_try_dimm(vm, 0, DIMM_AT))) {
        vm_del_backend(vm, 0);
        return false;
    }
    vm_fill_range(vm, DIMM_AT, DIMM_LEN, 2);
    vm_check_range(vm, DIMM_AT, DIMM_LEN, 2);
    if (!vm->stopped) {
        vm_remove_dimm(vm, 0);
    }
    return true;
}

static void dimm(const Scenario *s, SweptVM *swept)
{
    /* What was refused left nothing behind, where only one call fails */
    if (!plug(s, swept) && !strpbrk(swept->faults, "+,")) {
        g_assert_true(plug(s, swept));
    }
}

#ifndef HOST_AARCH64
static void reset(const Scenario *s, SweptVM *swept)
{
    /* A reset alone changes no memslot */
    vm_do(swept->vm, "pam on");
    vm_reset(swept->vm);
    vm_do(swept->vm, "pam off");
}

static void pam(const Scenario *s, SweptVM *swept)
{
    vm_do(swept->vm, "pam on");
    vm_do(swept->vm, "pam off");
}
#endif

static void balloon(const Scenario *s, SweptVM *swept)
{
    balloon_inflate(swept->driver, FREE, 64 * KiB);
    balloon_deflate(swept->driver, FREE, 64 * KiB);
}

static void virtio_mem(const Scenario *s, SweptVM *swept)
{
    VM *vm = swept->vm;
    uint64_t start = virtio_mem_start_address(swept->driver);

    virtio_mem_request(vm, DIMM_LEN);
    if (virtio_mem_try(swept->driver, true, start, DIMM_LEN)) {
        vm_fill_range(vm, start, DIMM_LEN, 2);
        virtio_mem_request(vm, 0);
        if (virtio_mem_try(swept->driver, false, start, DIMM_LEN)) {
            return;
        }
        /* Then it keeps what it has */
        vm_check_range(vm, start, DIMM_LEN, 2);
    }
    swept->refused++;
    swept->used = true;
}

static void dump(const Scenario *s, SweptVM *swept)
{
    g_autofree char *path = g_strdup_printf("%s/dump", scenario_tmp);
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    try(swept, swept->vm, "{'execute': 'dump-guest-memory', 'arguments': {"
        "'paging': false, 'protocol': %s}}", uri);
    unlink(path);
}

static bool is_measured(VM *vm)
{
    g_autoptr(QDict) rsp = qtest_qmp_assert_success_ref(vm->qts,
        "{'execute': 'query-dirty-rate'}");

    return g_str_equal(qdict_get_str(rsp, "status"), "measured");
}

static void dirty_rate(const Scenario *s, SweptVM *swept)
{
    if (try(swept, swept->vm, "{'execute': 'calc-dirty-rate', 'arguments': {"
            "'calc-time': 50, 'calc-time-unit': 'millisecond',"
            "'mode': %s}}", s->ring ? "dirty-ring" : "dirty-bitmap")) {
        VM_WAIT(is_measured(swept->vm));
    }
}

static bool is_over(VM *vm)
{
    const char *const over[] = { "completed", "failed", "cancelled", NULL };
    g_autofree char *status = migrate_query_status(vm->qts);

    return g_strv_contains(over, status);
}

/* Returns: true if it completed */
static bool wait_for_migration(VM *vm)
{
    g_autofree char *status = NULL;

    VM_WAIT(is_over(vm));
    status = migrate_query_status(vm->qts);
    return g_str_equal(status, "completed");
}

static void cancel(const Scenario *s, SweptVM *swept)
{
    VM *vm = swept->vm;

    migrate_set_parameter_int(vm->qts, "max-bandwidth", 4096);
    if (try(swept, vm, "{'execute': 'migrate', 'arguments': {"
            "'uri': 'exec:cat > /dev/null'}}")) {
        VM_WAIT(read_ram_property_int(vm->qts, "dirty-sync-count") > 0 ||
                is_over(vm));
        keep(swept);
        migrate_cancel(vm->qts);
        wait_for_migration(vm);
    }
}

static void set_multifd(VM *vm)
{
    migrate_set_capability(vm->qts, "multifd", true);
}

/* The memory is in the target, and the source goes on, too */
static void migrate(const Scenario *s, SweptVM *swept)
{
    g_autofree char *path = g_strdup_printf("%s/migration", scenario_tmp);
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    VM *src = swept->vm, *dst;
    bool done = false;

    if (s->faulty_target) {
        vm_set_faults("");
        dst = vm_start("%s -incoming defer", s->args);
        vm_set_faults(swept->faults);
    } else {
        vm_faults_end();
        dst = vm_start("%s -incoming defer", s->args);
        vm_faults_begin(NULL);
    }
    dst->may_stop = true;
    migrate_set_parameter_int(src->qts, "max-bandwidth", 0);
    /* Where KVM does not log, all that is sent is sent again, until it stops */
    migrate_set_parameter_int(src->qts, "downtime-limit", 60 * 1000);
    if (strstr(s->name, "multifd")) {
        set_multifd(src);
        set_multifd(dst);
    }
    if (try(swept, dst, "{'execute': 'migrate-incoming', 'arguments': {"
            "'uri': %s, 'exit-on-error': false}}", uri) &&
        try(swept, src, "{'execute': 'migrate', 'arguments': {'uri': %s}}",
            uri)) {
        done = wait_for_migration(src) && wait_for_migration(dst);
    }
    swept->refused += !done;
    if (done) {
        swept->vm = dst;
        swept_check(swept);
        g_assert_false(dst->stopped);
        swept->vm = src;
    }
    vm_quit(dst);
    unlink(path);
    if (!vm_has_status(src, "running")) {
        qtest_qmp_assert_success(src->qts, "{'execute': 'cont'}");
    }
}

/* HMP; a warning that is said there, too, is no refusal */
static bool hmp_is_refused(SweptVM *swept, const char *command)
{
    g_autofree char *said = qtest_hmp(swept->vm->qts, "%s", command);

    if (said[0]) {
        g_test_message("%s: %s", command, said);
    }
    if (strstr(said, "Error:")) {
        swept->refused++;
        return true;
    }
    return false;
}

static void savevm(const Scenario *s, SweptVM *swept)
{
    bool refused = hmp_is_refused(swept, "savevm one");

    keep(swept);
    if (!refused && !hmp_is_refused(swept, "loadvm one")) {
        swept->seed--;
    }
}

const Scenario scenarios[] = {
    { "boot", boot, MACHINE, true },
    { "boot/machine", boot,
      "-machine " VM_TYPE ",guest-memfd=on" RAM, true },
    { "boot/bind-on", boot, MACHINE ",kvm-bind=on", true },
    { "boot/bind-off", boot, MACHINE ",kvm-bind=off", true },
    { "boot/prealloc", boot, MACHINE ",prealloc=on,prealloc-threads=2", true },
    { "boot/policy", boot, MACHINE ",host-nodes=0,policy=bind", true },
    { "object", object, MACHINE },
    { "dimm", dimm, MACHINE },
    { "dimm/bind-on", dimm, MACHINE },
#ifndef HOST_AARCH64
    { "reset", reset, MACHINE },
    { "pam", pam, MACHINE },
#endif
    { "balloon", balloon, MACHINE BALLOON_DEVICE },
    { "virtio-mem", virtio_mem,
      MACHINE " -object memory-backend-guest-memfd,id=vmem,size=32M"
      VIRTIO_MEM_DEVICE },
    { "dump", dump, MACHINE },
    { "dirty-rate", dirty_rate, MACHINE },
    { "cancel", cancel, MACHINE },
    { "migrate", migrate, MACHINE },
    { "migrate/multifd", migrate, MACHINE },
    { "incoming", migrate, MACHINE, .faulty_target = true },
    { "incoming/multifd", migrate, MACHINE, .faulty_target = true },
    { "savevm", savevm, MACHINE, .disk = true },
    { "dirty-ring/dirty-rate", dirty_rate,
      MACHINE " -accel kvm,dirty-ring-size=4096", .ring = true },
    { "dirty-ring/cancel", cancel,
      MACHINE " -accel kvm,dirty-ring-size=4096", .ring = true },
    { "dirty-ring/migrate", migrate,
      MACHINE " -accel kvm,dirty-ring-size=4096", .ring = true },
    { NULL }
};
