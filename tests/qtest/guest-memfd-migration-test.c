/*
 * Migration and dirty logging of VMs whose RAM is a guest_memfd
 *
 * The guest counts in every page of its RAM all the while; the count checks
 * each page for lost and doubled writes when it ends (tests/guest-memfd).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "guest-memfd/vm.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"

/* All of it is written and sent, often: in an emulated host, pages are slow */
#define RAM         "48M"
#define RAM_SIZE    (48 * MiB)
/* A part of it */
#define COUNTED     VM_AT(24 * MiB)
#define COUNTED_LEN (8 * MiB)

#define GMEM "memory-backend-guest-memfd"
#define MEMFD "memory-backend-memfd"
#define ANON "memory-backend-ram"

static char *tmp;
static const char *never_completed[] = { "completed", NULL };

typedef struct Case {
    const char *name;
    const char *machine;            /* default: VM_TYPE */
    const char *src, *dst;          /* backend of each side; default: GMEM */
    bool bind_off;                  /* kvm-bind=off on both */
    bool full_path;                 /* what old machines call memfd's RAM */
    const char *accel_opts;
    int cpus;                       /* default: 1 */
    const char *transport;          /* default: unix */
    const char *caps[3];
    const char *param, *value;      /* a string parameter */
    bool direct_io;
} Case;

static bool is_gmem(const char *backend)
{
    return !backend || g_str_equal(backend, GMEM);
}

static VM *start_side(const Case *c, const char *backend, const char *extra)
{
    return vm_start("-accel kvm%s -machine %s,memory-backend=ram0 -m " RAM
                    " -smp %d -object %s,id=ram0,size=" RAM "%s%s %s",
                    c->accel_opts ?: "", c->machine ?: VM_TYPE, c->cpus ?: 1,
                    backend ?: GMEM,
                    c->bind_off && is_gmem(backend) ? ",kvm-bind=off" : "",
                    c->full_path && is_gmem(backend)
                    ? ",x-use-canonical-path-for-ramblock-id=on" : "",
                    extra);
}

static void assert_at_rest(VM *vm, const Case *c, const char *backend)
{
    if (!is_gmem(backend)) {
        g_assert_false(vm_info_exists(vm, "ram0"));
        return;
    }
    vm_wait_settled(vm, "ram0");
    if (c->bind_off) {
        vm_assert_unbound(vm, "ram0", "disabled");
    } else {
        vm_assert_bound(vm, "ram0", RAM_SIZE);
    }
}

static void assert_logging(VM *vm, const Case *c)
{
    vm_assert_unbound(vm, "ram0", c->bind_off ? "disabled" : "dirty-log");
}

static void start_counting(VM *vm, const Case *c)
{
    if (c->cpus) {
        vm_do(vm, "smp %d", c->cpus);
    }
    vm_do(vm, "count all");
}

/* The guest still counts; then it ends its count and finds all pages right */
static void stop_counting(VM *vm)
{
    const uint64_t page = VM_AT(RAM_SIZE - 4096);
    uint64_t before = qtest_readq(vm->qts, page);
    g_autofree char *answer = NULL;

    VM_WAIT(qtest_readq(vm->qts, page) != before);
    answer = vm_command(vm, "stop");
    g_assert_true(g_str_has_prefix(answer, "passes="));
}

static void set_up(VM *vm, const Case *c)
{
    for (int i = 0; i < ARRAY_SIZE(c->caps) && c->caps[i]; i++) {
        migrate_set_capability(vm->qts, c->caps[i], true);
        if (g_str_equal(c->caps[i], "multifd")) {
            migrate_set_parameter_int(vm->qts, "multifd-channels", 4);
        }
    }
    if (c->param) {
        migrate_set_parameter_str(vm->qts, c->param, c->value);
    }
    if (c->direct_io) {
        migrate_set_parameter_bool(vm->qts, "direct-io", true);
    }
}

/* ... or as many as it takes until little is left to send */
static void wait_for_passes(VM *vm, int passes)
{
    while (read_ram_property_int(vm->qts, "dirty-sync-count") <= passes) {
        g_autofree char *status = migrate_query_status(vm->qts);

        g_assert_cmpstr(status, !=, "failed");
        g_assert_cmpstr(status, !=, "completed");
        if (g_str_equal(status, "pre-switchover")) {
            break;
        }
        g_usleep(10 * 1000);
    }
}

/*
 * Slow enough to go through several passes; where a starved guest writes
 * little, the source waits before it hands over
 */
static void start_slowly(VM *vm)
{
    migrate_set_capability(vm->qts, "pause-before-switchover", true);
    migrate_set_parameter_int(vm->qts, "downtime-limit", 1);
    migrate_set_parameter_int(vm->qts, "max-bandwidth", 300 * MiB);
}

static void let_finish(VM *vm)
{
    migrate_set_parameter_int(vm->qts, "max-bandwidth", 0);
    migrate_set_parameter_int(vm->qts, "downtime-limit", 60 * 1000);
    wait_for_migration_status(vm->qts, "pre-switchover", never_completed);
    migrate_continue(vm->qts, "pre-switchover");
}

static void wait_for_failure(VM *vm)
{
    wait_for_migration_status(vm->qts, "failed", never_completed);
    vm_wait_settled(vm, "ram0");
}

static void give_fd(VM *vm, int fd)
{
    qtest_qmp_fds_assert_success(vm->qts, &fd, 1, "{'execute': 'getfd',"
                                 "'arguments': {'fdname': 'migration'}}");
    close(fd);
}

static void test_migrate(const void *data)
{
    const Case *c = data;
    const char *transport = c->transport ?: "unix";
    bool file = g_str_equal(transport, "file");
    VM *src = start_side(c, c->src, ""), *dst;
    g_autofree char *uri = g_strdup_printf("%s:%s/migration", transport, tmp);
    g_autofree char *connect = NULL;

    vm_wait_ready(src);
    assert_at_rest(src, c, c->src);
    start_counting(src, c);
    dst = start_side(c, c->dst, "-incoming defer");
    set_up(src, c);
    set_up(dst, c);
    start_slowly(src);

    if (g_str_equal(transport, "tcp")) {
        migrate_incoming_qmp(dst->qts, "tcp:127.0.0.1:0", NULL, "{}");
    } else if (g_str_equal(transport, "fd")) {
        int pair[2];

        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
        give_fd(src, pair[0]);
        give_fd(dst, pair[1]);
        g_free(uri);
        uri = g_strdup("fd:migration");
        migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
        connect = g_strdup(uri);
    } else {
        if (!file) {
            migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
        }
        connect = g_strdup(uri);
    }

    migrate_qmp(src->qts, dst->qts, connect, NULL, "{}");
    if (!file) {
        wait_for_passes(src, 2);
        if (is_gmem(c->src)) {
            assert_logging(src, c);
        }
    }
    let_finish(src);
    wait_for_migration_complete(src->qts);
    if (file) {
        migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    }
    wait_for_migration_complete(dst->qts);
    if (file) {
        qtest_qmp_assert_success(dst->qts, "{'execute': 'cont'}");
    }
    qtest_qmp_eventwait(dst->qts, "RESUME");

    /* The guest goes on on the destination, on bound RAM again */
    stop_counting(dst);
    assert_at_rest(dst, c, c->dst);
    start_counting(dst, c);
    stop_counting(dst);
    vm_fill(dst, 77);
    vm_check(dst, 77);
    vm_quit(dst);

    /* ... as it does on a source that is resumed, as after a failed switch */
    qtest_qmp_assert_success(src->qts, "{'execute': 'cont'}");
    stop_counting(src);
    assert_at_rest(src, c, c->src);
    vm_quit(src);
}

static const Case migrations[] = {
    { "unix" },
    { "pc", .machine = "pc" },
    { "tcp", .transport = "tcp" },
    { "fd", .transport = "fd" },
    { "file", .transport = "file" },
    { "multifd", .transport = "tcp", .caps = { "multifd" } },
    { "mapped-ram", .transport = "file", .caps = { "mapped-ram" } },
    { "mapped-ram/multifd", .transport = "file",
      .caps = { "mapped-ram", "multifd" } },
    { "mapped-ram/direct-io", .transport = "file", .direct_io = true,
      .caps = { "mapped-ram", "multifd" } },
    { "xbzrle", .caps = { "xbzrle" } },
    { "zero-page/none", .param = "zero-page-detection", .value = "none" },
    { "zero-page/legacy", .param = "zero-page-detection", .value = "legacy" },
    { "zero-page/multifd", .transport = "tcp", .caps = { "multifd" },
      .param = "zero-page-detection", .value = "multifd" },
    { "auto-converge", .caps = { "auto-converge" } },
    { "from-memfd", .src = MEMFD },
    { "to-memfd", .dst = MEMFD },
    { "old-machine/from-memfd", .machine = "pc-q35-3.1", .src = MEMFD,
      .full_path = true },
    { "old-machine/to-memfd", .machine = "pc-q35-3.1", .dst = MEMFD,
      .full_path = true },
    { "from-ram", .src = ANON },
    { "to-ram", .dst = ANON },
};

static const Case ring_migrations[] = {
    { "dirty-ring", .accel_opts = ",dirty-ring-size=4096" },
};

/* Start and cancel, again and again */
static void test_cancel(const void *data)
{
    const Case *c = data;
    VM *src = start_side(c, c->src, "");
    int slots, fds;

    vm_wait_ready(src);
    slots = vm_count_slots(src, "ram0", "bound");
    fds = vm_count_gmem_fds(src);
    start_counting(src, c);
    start_slowly(src);
    for (int i = 0; i < 50; i++) {
        migrate_qmp(src->qts, NULL, "exec:cat > /dev/null", NULL, "{}");
        wait_for_passes(src, i % 3);
        assert_logging(src, c);
        migrate_cancel(src->qts);
        wait_for_migration_status(src->qts, "cancelled", NULL);
        assert_at_rest(src, c, c->src);
        g_assert_cmpint(vm_count_slots(src, "ram0", "bound"), ==, slots);
        g_assert_cmpint(vm_count_gmem_fds(src), ==, fds);
    }
    g_assert_cmpint(vm_info_number(src, "ram0", "switches"), ==,
                    50 * 2 * slots);
    g_assert_true(c->bind_off ==
                  !vm_info_number(src, "ram0", "max-inhibit-us"));
    stop_counting(src);
    vm_quit(src);
}

static const Case cancels[] = {
    { "cancel" },
    { "cancel/pc", .machine = "pc" },
};

/* A migration that fails on its own leaves the source bound and counting */
static void test_fail(const void *data)
{
    const Case *c = data;
    VM *src = start_side(c, c->src, "");

    vm_wait_ready(src);
    /* Pages of zeroes would be sent, and the migration over, before it fails */
    vm_fill(src, 1);
    start_counting(src, c);
    start_slowly(src);
    migrate_qmp(src->qts, NULL, "exec:head -c 9000000 > /dev/null", NULL, "{}");
    wait_for_failure(src);
    assert_at_rest(src, c, c->src);
    stop_counting(src);
    vm_quit(src);
}

/* calc-dirty-rate of a guest that writes to a part of its memory only */

typedef struct RateCase {
    const char *mode;
    const char *accel_opts;
    int64_t most;               /* MiB/s */
} RateCase;

/* Measured for a second at least */
static int64_t dirty_rate(VM *vm, const char *mode)
{
    qtest_qmp_assert_success(vm->qts, "{'execute': 'calc-dirty-rate',"
                             "'arguments': {'calc-time': 1, 'mode': %s}}",
                             mode);
    for (;;) {
        g_autoptr(QDict) rsp =
            qtest_qmp_assert_success_ref(vm->qts,
                                         "{'execute': 'query-dirty-rate'}");

        if (g_str_equal(qdict_get_str(rsp, "status"), "measured")) {
            return qdict_get_int(rsp, "dirty-rate");
        }
        g_usleep(20 * 1000);
    }
}

static void test_dirty_rate(const void *data)
{
    const RateCase *r = data;
    const Case c = { .accel_opts = r->accel_opts };
    bool logs = !g_str_equal(r->mode, "page-sampling");
    VM *vm = start_side(&c, NULL, "");
    uint64_t before;
    int64_t rate;

    vm_wait_ready(vm);
    before = vm_info_number(vm, "ram0", "switches");
    vm_start_count(vm, 1, COUNTED, COUNTED_LEN);
    /* A guest that is starved may have written less than a MiB */
    do {
        rate = dirty_rate(vm, r->mode);
    } while (!rate);
    g_assert_cmpint(rate, <=, r->most);
    assert_at_rest(vm, &c, NULL);
    g_assert_true((vm_info_number(vm, "ram0", "switches") > before) == logs);
    vm_stop_count(vm);
    vm_quit(vm);
}

static const RateCase rates[] = {
    { "page-sampling", .most = RAM_SIZE / MiB },
    /* What is not logged would be dirty as a whole */
    { "dirty-bitmap", .most = COUNTED_LEN / MiB + 2 },
};
static const RateCase ring_rates[] = {
    /* It counts a page each time that it is written anew */
    { "dirty-ring", ",dirty-ring-size=4096", INT64_MAX },
};

/* Limiting the dirty rate of vCPUs needs logging as long as it lasts */
static void test_dirty_limit(const void *data)
{
    const Case *c = data;
    VM *vm = start_side(c, NULL, "");

    vm_wait_ready(vm);
    start_counting(vm, c);
    for (int i = 0; i < 3; i++) {
        qtest_qmp_assert_success(vm->qts, "{'execute': 'set-vcpu-dirty-limit',"
                                 "'arguments': {'dirty-rate': 16}}");
        /* by a thread of its own, soon */
        while (vm_info_number(vm, "ram0", "bound")) {
            g_usleep(10 * 1000);
        }
        assert_logging(vm, c);
        g_usleep(300 * 1000);
        qtest_qmp_assert_success(vm->qts,
                                 "{'execute': 'cancel-vcpu-dirty-limit'}");
        assert_at_rest(vm, c, NULL);
    }
    stop_counting(vm);
    vm_quit(vm);
}

/* What needs userfaultfd is refused before anything is lost */
static void test_userfault(const void *data)
{
    const Case *c = data;
    static const char *const caps[] = { "postcopy-ram", "background-snapshot" };
    static const char *const sides[] = { "", "-incoming defer" };

    for (int i = 0; i < ARRAY_SIZE(sides); i++) {
        VM *vm = start_side(c, NULL, sides[i]);

        /* A source needs none for postcopy */
        for (int j = i ? 0 : 1; j < ARRAY_SIZE(caps); j++) {
            QDict *error = qtest_qmp_assert_failure_ref(vm->qts,
                "{'execute': 'migrate-set-capabilities', 'arguments': {"
                "'capabilities': [{'capability': %s, 'state': true}]}}",
                caps[j]);
            const char *desc = qdict_get_str(error, "desc");

            g_assert_nonnull(strstr(desc, caps[j]));
            g_assert_nonnull(strstr(desc, "'ram0'"));
            qobject_unref(error);
        }
        vm_quit(vm);
    }
}

/* The kernel refuses a part of a switch: the VM goes on, and can migrate */

typedef struct FaultCase {
    const char *name;
    const char *fault;
    const char *during, *after;     /* state of all slots */
} FaultCase;

static void test_fault(const void *data)
{
    const FaultCase *f = data;
    const Case c = {};
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    VM *src, *dst;

    vm_faults_begin("");
    src = start_side(&c, NULL, "");
    vm_faults_end();
    vm_wait_ready(src);
    /* More than `head` below takes, whether the guest counts or starves */
    vm_fill(src, 1);
    start_counting(src, &c);

    /* cancelled while the kernel refuses, then again when it does not */
    start_slowly(src);
    vm_set_faults(f->fault);
    migrate_qmp(src->qts, NULL, "exec:cat > /dev/null", NULL, "{}");
    wait_for_passes(src, 2);
    g_assert_cmpint(vm_count_slots(src, "ram0", f->during), >, 0);
    migrate_cancel(src->qts);
    wait_for_migration_status(src->qts, "cancelled", NULL);
    vm_wait_settled(src, "ram0");
    g_assert_cmpint(vm_count_slots(src, "ram0", f->after), >, 0);
    vm_set_faults("");

    /* carried out while the kernel refuses */
    vm_set_faults(f->fault);
    dst = start_side(&c, NULL, "-incoming defer");
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    wait_for_passes(src, 2);
    let_finish(src);
    wait_for_migration_complete(src->qts);
    wait_for_migration_complete(dst->qts);
    stop_counting(dst);
    vm_assert_bound(dst, "ram0", RAM_SIZE);
    vm_quit(dst);

    /* and once the kernel does as told, all is bound after the next logging */
    vm_set_faults("");
    qtest_qmp_assert_success(src->qts, "{'execute': 'cont'}");
    migrate_qmp(src->qts, NULL, "exec:head -c 9000000 > /dev/null", NULL, "{}");
    wait_for_failure(src);
    vm_assert_bound(src, "ram0", RAM_SIZE);
    stop_counting(src);
    vm_quit(src);
}

static const FaultCase faults[] = {
    { "delete", "delete=12", "bound", "bound" },
    { "log", "log=12", "dirty-log", "bound" },
    { "log-and-hva", "log=12 hva=12", "bound", "bound" },
    { "bind", "bind=12", "dirty-log", "refused" },
};

/* Each case as it is, with 4 vCPUs, and without binding */
static void add_cases(const Case *cases, int n, GTestDataFunc func)
{
    for (int i = 0; i < n * 3; i++) {
        static const char *const suffix[] = { "", "/smp", "/bind-off" };
        Case *c = g_memdup2(&cases[i / 3], sizeof(Case));
        g_autofree char *path = g_strdup_printf("/guest-memfd/migration/%s%s",
                                                c->name, suffix[i % 3]);

        if (c->machine && !qtest_has_machine(c->machine)) {
            g_free(c);
            continue;
        }
        c->cpus = i % 3 == 1 ? 4 : 0;
        c->bind_off = i % 3 == 2;
        qtest_add_data_func_full(path, c, func, g_free);
    }
}

static const Case plain = { "fail" };
static const Case userfault = { "userfault" };
static const Case dirty_limit = {
    "dirty-limit", .accel_opts = ",dirty-ring-size=4096"
};

int main(int argc, char **argv)
{
    int ret;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);

    add_cases(migrations, ARRAY_SIZE(migrations), test_migrate);
    add_cases(cancels, ARRAY_SIZE(cancels), test_cancel);
    add_cases(&plain, 1, test_fail);
    qtest_add_data_func("/guest-memfd/migration/userfault", &userfault,
                        test_userfault);
    for (int i = 0; i < ARRAY_SIZE(faults); i++) {
        g_autofree char *path = g_strdup_printf(
            "/guest-memfd/migration/refused/%s", faults[i].name);

        qtest_add_data_func(path, &faults[i], test_fault);
    }
    for (int i = 0; i < ARRAY_SIZE(rates); i++) {
        g_autofree char *path = g_strdup_printf("/guest-memfd/dirty-rate/%s",
                                                rates[i].mode);

        qtest_add_data_func(path, &rates[i], test_dirty_rate);
    }
    if (kvm_dirty_ring_supported()) {
        add_cases(ring_migrations, ARRAY_SIZE(ring_migrations), test_migrate);
        add_cases(&dirty_limit, 1, test_dirty_limit);
        qtest_add_data_func("/guest-memfd/dirty-rate/dirty-ring",
                            &ring_rates[0], test_dirty_rate);
    } else {
        g_test_message("KVM has no dirty ring here");
    }

    ret = g_test_run();
    rmdir(tmp);
    return ret;
}
