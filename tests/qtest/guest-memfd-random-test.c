/*
 * Random operations on a VM whose RAM is guest_memfds
 *
 * The guest keeps patterns in several ranges and counts in another.  Whatever
 * happens in between, it finds them as they must be, and nothing leaks.
 *
 * GUEST_MEMFD_SEED=N repeats a run; GUEST_MEMFD_STEPS=N makes it longer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "guest-memfd/plug.h"
#include "guest-memfd/virtio.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"

#define STEPS       200
#define SEED        41          /* of what the guest keeps */

#define RAM         (256 * MiB)
#define COUNT       (16 * MiB)
#define COUNT_LEN   (64 * MiB)
#define KEPT        (96 * MiB)          /* nothing happens here */
#define KEPT_LEN    (32 * MiB)
#define BALLOON     (160 * MiB)
#define BALLOON_LEN (16 * MiB)
#define SHADOW      0xc0000ULL          /* behind ROMs until PAM opens it */
#define SHADOW_LEN  0x20000ULL
#define VMEM_LEN    (256 * MiB)
#define VMEM_STEP   (16 * MiB)
#define DIMM        (8 * GiB)
#define DIMM_LEN    (32 * MiB)
#define DIMMS       3

static const char *never_completed[] = { "completed", NULL };

typedef struct State {
    VM *vm;
    const char *machine;
    GRand *rand;
    VirtioDriver *balloon, *vmem;
    uint64_t vmem_start, vmem_size;
    bool stopped, counting, measuring, inflated, shadow, spare;
    bool dimm[DIMMS];
    uint64_t passes;
} State;

/* Let the guest run, or also listen */

static void run(State *s)
{
    if (s->stopped) {
        qtest_qmp_assert_success(s->vm->qts, "{'execute': 'cont'}");
        s->stopped = false;
    }
}

static void listen_to_us(State *s)
{
    run(s);
    if (s->counting) {
        vm_stop_count(s->vm);
        s->counting = false;
        s->passes++;
    }
}

/* The operations */

static void do_count(State *s)
{
    listen_to_us(s);
    vm_start_count(s->vm, 1 + g_rand_int_range(s->rand, 0, 2), COUNT,
                   COUNT_LEN);
    s->counting = true;
}

static void do_check(State *s)
{
    listen_to_us(s);
    vm_check_range(s->vm, KEPT, KEPT_LEN, SEED);
    if (s->vmem_size) {
        vm_check_range(s->vm, s->vmem_start, s->vmem_size, SEED);
    }
    for (int i = 0; i < DIMMS; i++) {
        if (s->dimm[i]) {
            vm_check_range(s->vm, DIMM + i * GiB, DIMM_LEN, SEED);
        }
    }
    if (s->shadow) {
        vm_check_range(s->vm, SHADOW, SHADOW_LEN, SEED);
    }
}

static void do_dimm(State *s)
{
    int i = g_rand_int_range(s->rand, 0, DIMMS);
    g_autofree char *mem = g_strdup_printf("mem%d", i);

    if (s->dimm[i]) {
        vm_remove_dimm(s->vm, i);
    } else {
        uint64_t addr = DIMM + i * GiB;

        qtest_qmp_assert_success(s->vm->qts, "{'execute': 'object-add',"
            "'arguments': {'qom-type': 'memory-backend-guest-memfd',"
            "'id': %s, 'size': %" PRIu64 ", 'prealloc': %i}}", mem, DIMM_LEN,
            g_rand_boolean(s->rand));
        vm_add_dimm(s->vm, i, addr);
        listen_to_us(s);
        vm_check_zero(s->vm, addr, DIMM_LEN);
        vm_fill_range(s->vm, addr, DIMM_LEN, SEED);
    }
    s->dimm[i] = !s->dimm[i];
}

static void do_object(State *s)
{
    if (s->spare) {
        qtest_qmp_assert_success(s->vm->qts, "{'execute': 'object-del',"
                                 "'arguments': {'id': 'spare'}}");
    } else {
        qtest_qmp_assert_success(s->vm->qts, "{'execute': 'object-add',"
            "'arguments': {'qom-type': 'memory-backend-guest-memfd',"
            "'id': 'spare', 'size': 1048576}}");
    }
    s->spare = !s->spare;
}

static void do_balloon(State *s)
{
    run(s);
    if (s->inflated) {
        balloon_deflate(s->balloon, BALLOON, BALLOON_LEN);
    } else if (g_rand_boolean(s->rand)) {
        balloon_report(s->balloon, BALLOON, BALLOON_LEN);
    } else {
        balloon_inflate(s->balloon, BALLOON, BALLOON_LEN);
    }
    s->inflated = !s->inflated;
    if (g_rand_boolean(s->rand)) {
        listen_to_us(s);
        if (s->inflated) {
            vm_check_zero(s->vm, BALLOON, BALLOON_LEN);
        } else {
            vm_fill_range(s->vm, BALLOON, BALLOON_LEN, SEED);
        }
    }
}

static void do_vmem(State *s)
{
    uint64_t size = VMEM_STEP * g_rand_int_range(s->rand, 0,
                                                 VMEM_LEN / VMEM_STEP + 1);
    uint64_t end = s->vmem_start + s->vmem_size;

    run(s);
    virtio_mem_request(s->vm, size);
    if (size > s->vmem_size) {
        virtio_mem_plug(s->vmem, end, size - s->vmem_size);
        listen_to_us(s);
        vm_check_zero(s->vm, end, size - s->vmem_size);
        vm_fill_range(s->vm, end, size - s->vmem_size, SEED);
    } else if (size < s->vmem_size) {
        virtio_mem_unplug(s->vmem, s->vmem_start + size, s->vmem_size - size);
    }
    s->vmem_size = size;
    g_assert_cmpint(virtio_mem_plugged(s->vmem), ==, size);
}

static void start_drivers(State *s)
{
    s->balloon = balloon_start(s->vm);
    s->vmem = virtio_mem_start(s->vm);
    s->vmem_start = virtio_mem_start_address(s->vmem);
    s->vmem_size = virtio_mem_plugged(s->vmem);
}

static void free_drivers(State *s)
{
    virtio_free(s->balloon);
    virtio_free(s->vmem);
}

/* RAM keeps what is in it, but a virtio-mem device unplugs all */
static void do_reset(State *s)
{
    listen_to_us(s);
    free_drivers(s);
    qtest_qmp_assert_success(s->vm->qts, "{'execute': 'system_reset'}");
    qtest_qmp_eventwait(s->vm->qts, "RESET");
    vm_wait_ready(s->vm);
    virtio_mem_request(s->vm, 0);
    start_drivers(s);
    g_assert_cmpint(s->vmem_size, ==, 0);
    s->inflated = false;
    vm_do(s->vm, s->shadow ? "pam on" : "pam off");
    vm_check_range(s->vm, KEPT, KEPT_LEN, SEED);
}

static void do_stop(State *s)
{
    if (s->stopped) {
        run(s);
    } else {
        qtest_qmp_assert_success(s->vm->qts, "{'execute': 'stop'}");
        s->stopped = true;
    }
}

static void do_migrate(State *s)
{
    migrate_qmp(s->vm->qts, NULL, "exec:cat > /dev/null", NULL, "{}");
    g_usleep(g_rand_int_range(s->rand, 0, 100 * 1000));
    migrate_cancel(s->vm->qts);
    wait_for_migration_status(s->vm->qts, "cancelled", never_completed);
}

/* A measurement is "unstarted" for a moment after it was asked for */
static bool is_measuring(State *s)
{
    if (s->measuring) {
        QDict *rsp = qtest_qmp_assert_success_ref(s->vm->qts,
            "{'execute': 'query-dirty-rate'}");

        s->measuring = !g_str_equal(qdict_get_str(rsp, "status"), "measured");
        qobject_unref(rsp);
    }
    return s->measuring;
}

static void do_dirty_rate(State *s)
{
    const char *mode = g_rand_boolean(s->rand) ? "dirty-bitmap"
                                               : "page-sampling";

    if (!is_measuring(s)) {
        qtest_qmp_assert_success(s->vm->qts, "{'execute': 'calc-dirty-rate',"
            "'arguments': {'calc-time': 100, 'calc-time-unit': 'millisecond',"
            "'mode': %s}}", mode);
        s->measuring = true;
    }
}

static void do_pam(State *s)
{
    listen_to_us(s);
    s->shadow = !s->shadow;
    if (s->shadow) {
        vm_do(s->vm, "pam on");
        vm_check_range(s->vm, SHADOW, SHADOW_LEN, SEED);
    } else {
        vm_do(s->vm, "pam off");
    }
}

static const struct {
    const char *name;
    void (*run)(State *s);
} ops[] = {
    { "count", do_count }, { "check", do_check }, { "dimm", do_dimm },
    { "object", do_object }, { "balloon", do_balloon }, { "vmem", do_vmem },
    { "reset", do_reset }, { "stop", do_stop }, { "migrate", do_migrate },
    { "dirty-rate", do_dirty_rate }, { "pam", do_pam },
};

/* Everything as it was at the start */
static void undo(State *s)
{
    while (is_measuring(s)) {
        g_usleep(10 * 1000);
    }
    do_check(s);
    if (s->spare) {
        do_object(s);
    }
    if (s->shadow) {
        do_pam(s);
    }
    if (s->inflated) {
        balloon_deflate(s->balloon, BALLOON, BALLOON_LEN);
    }
    virtio_mem_request(s->vm, 0);
    virtio_mem_unplug_all(s->vmem);
    while (s->dimm[0] || s->dimm[1] || s->dimm[2]) {
        do_dimm(s);
    }
    listen_to_us(s);
}

static uint64_t number_from_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t number = otherwise;

    if (text) {
        g_assert_cmpint(qemu_strtou64(text, NULL, 0, &number), ==, 0);
    }
    return number;
}

static void assert_slots_bound(State *s, const char *id)
{
    if (vm_info_exists(s->vm, id)) {
        vm_wait_settled(s->vm, id);
        vm_assert_slots_bound(s->vm, id);
    }
}

static void test_random(const void *machine)
{
    uint32_t seed = number_from_env("GUEST_MEMFD_SEED", g_random_int());
    int steps = number_from_env("GUEST_MEMFD_STEPS", STEPS);
    State s = { .rand = g_rand_new_with_seed(seed) };
    int fds, slots, maps;

    g_test_message("GUEST_MEMFD_SEED=%u", seed);
    s.vm = vm_start("-machine %s,memory-backend=ram0 -smp 2 "
                    "-m 256M,slots=3,maxmem=16G "
                    "-object memory-backend-guest-memfd,id=ram0,size=256M "
                    "-object memory-backend-guest-memfd,id=vmem,size=256M"
                    BALLOON_DEVICE VIRTIO_MEM_DEVICE ",memaddr=0x140000000",
                    (const char *)machine);
    vm_wait_ready(s.vm);
    migrate_set_parameter_int(s.vm->qts, "downtime-limit", 1);
    migrate_set_parameter_int(s.vm->qts, "max-bandwidth", 20 * MiB);
    vm_do(s.vm, "pam on");
    vm_fill_range(s.vm, SHADOW, SHADOW_LEN, SEED);
    vm_do(s.vm, "pam off");
    vm_fill_range(s.vm, KEPT, KEPT_LEN, SEED);
    start_drivers(&s);
    fds = vm_count_gmem_fds(s.vm);
    maps = vm_count_maps(s.vm);
    slots = vm_count_slots(s.vm, "ram0", "bound");

    for (int i = 0; i < steps; i++) {
        int op = g_rand_int_range(s.rand, 0, ARRAY_SIZE(ops));

        g_test_message("%d: %s", i, ops[op].name);
        ops[op].run(&s);
        /* QEMU ends dirty logging when the VM runs */
        if (!s.stopped && !is_measuring(&s)) {
            assert_slots_bound(&s, "ram0");
            assert_slots_bound(&s, "vmem");
            assert_slots_bound(&s, "mem0");
        }
    }

    undo(&s);
    vm_wait_settled(s.vm, "ram0");
    g_assert_cmpint(steps < STEPS ? 1 : s.passes, >, 0);
    vm_assert_bound(s.vm, "ram0", RAM);
    vm_wait_gmem_fds(s.vm, fds);
    g_assert_cmpint(vm_count_slots(s.vm, "ram0", "bound"), ==, slots);
    g_assert_cmpint(vm_count_maps(s.vm), ==, maps);
    vm_fill_range(s.vm, RINGS_END, RAM - RINGS_END, 42);
    vm_check_range(s.vm, RINGS_END, RAM - RINGS_END, 42);

    free_drivers(&s);
    vm_quit(s.vm);
    g_rand_free(s.rand);
}

int main(int argc, char **argv)
{
    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    qtest_add_data_func("/guest-memfd/random/pc", "pc", test_random);
    qtest_add_data_func("/guest-memfd/random/q35", "q35", test_random);
    return g_test_run();
}
