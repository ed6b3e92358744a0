/*
 * Bad input: generated properties of the object and of the machine, for QMP,
 * HMP, the command line and -readconfig
 *
 * Whatever it is, QEMU takes it or refuses it in one sentence, and what it
 * refuses leaves nothing behind.  GUEST_MEMFD_SEED repeats or changes what is
 * generated, GUEST_MEMFD_STEPS how much.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"
#include "qobject/qbool.h"
#include "qobject/qnull.h"
#include "guest-memfd/vm.h"

#define GMEM    "memory-backend-guest-memfd"
#define MACHINE "-machine " VM_TYPE ",memory-backend=ram0 -m 32M -object " \
                GMEM ",id=ram0,size=32M"

static GRand *rng;

static int number(const char *name, int fallback)
{
    return getenv(name) ? atoi(getenv(name)) : fallback;
}

/* Each test generates the same, whichever of the others run */
static int begin(int steps)
{
    int seed = number("GUEST_MEMFD_SEED", 20261125);

    g_test_message("seed %d", seed);
    g_clear_pointer(&rng, g_rand_free);
    rng = g_rand_new_with_seed(seed);
    return number("GUEST_MEMFD_STEPS", steps);
}

static bool chance(int one_in)
{
    return g_rand_int_range(rng, 0, one_in) == 0;
}

#define PICK(array) ((array)[g_rand_int_range(rng, 0, ARRAY_SIZE(array))])

/*
 * Values
 */

static const char *const property[] = {
    "size", "size", "prealloc", "prealloc-threads", "share", "merge", "dump",
    "reserve", "kvm-bind", "host-nodes", "policy", "prealloc-context",
    "x-use-canonical-path-for-ramblock-id", "guest-memfd", "hugetlb", "seal",
    "mem-path", "type", "realized", "", "size ", "no-such-thing",
};

static const char *const word[] = {
    "", "on", "off", "auto", "true", "ON", "yes", "bind", "default",
    "interleave", "preferred", "0", "-1", "4096", "2M", "1.5G", "4T", "8E",
    "16E", "9223372036854775807", "9223372036854775808",
    "18446744073709551615", "18446744073709551616", "1e400", "0x7fffffff",
    "0-3", "3-0", "127", "128", "65535", "nan", "%s%n", "\xc3\xa4", "a b",
    "../../etc", "id=x", "ram0",
};

static const uint64_t value[] = {
    0, 1, 4095, 4096, 4097, 64 * KiB, 2 * MiB, 2 * MiB + 1, 16 * MiB,
    1ULL << 31, 1ULL << 32, 1ULL << 40, 1ULL << 47, 1ULL << 52,
    INT64_MAX - 4095, INT64_MAX, 1ULL << 63, UINT64_MAX - 4095, UINT64_MAX,
};

static QObject *any_value(void)
{
    QList *list;
    QDict *dict;

    switch (g_rand_int_range(rng, 0, 10)) {
    case 0: case 1: case 2:
        return QOBJECT(qnum_from_uint(PICK(value)));
    case 3:
        return QOBJECT(qnum_from_int(-g_rand_int_range(rng, 1, 100000)));
    case 4: case 5:
        return QOBJECT(qstring_from_str(PICK(word)));
    case 6:
        return QOBJECT(qbool_from_bool(chance(2)));
    case 7:
        list = qlist_new();
        for (int n = g_rand_int_range(rng, 0, 4); n > 0; n--) {
            qlist_append_obj(list, QOBJECT(qnum_from_uint(PICK(value))));
        }
        return QOBJECT(list);
    case 8:
        dict = qdict_new();
        qdict_put_str(dict, PICK(word), PICK(word));
        return QOBJECT(dict);
    default:
        return QOBJECT(qnull());
    }
}

/* Of the right kind, so that what comes behind is reached, too */
static QObject *fit_value(const char *name)
{
    static const char *const onoff[] = { "on", "off", "auto" };
    static const char *const policy[] = {
        "default", "preferred", "bind", "interleave",
    };
    QList *nodes;

    if (g_str_equal(name, "size") || g_str_equal(name, "prealloc-threads")) {
        return QOBJECT(qnum_from_uint(PICK(value)));
    }
    if (g_str_equal(name, "kvm-bind") || g_str_equal(name, "guest-memfd")) {
        return QOBJECT(qstring_from_str(PICK(onoff)));
    }
    if (g_str_equal(name, "policy")) {
        return QOBJECT(qstring_from_str(PICK(policy)));
    }
    if (g_str_equal(name, "host-nodes")) {
        nodes = qlist_new();
        qlist_append_int(nodes, chance(2) ? 0 : g_rand_int_range(rng, 0, 200));
        return QOBJECT(nodes);
    }
    return QOBJECT(qbool_from_bool(chance(2)));
}

/* Neither host nor test has memory for all that is asked for */
static bool is_too_much(QDict *props)
{
    return qdict_haskey(props, "prealloc") &&
           (!qdict_haskey(props, "size") ||
            qobject_type(qdict_get(props, "size")) != QTYPE_QNUM ||
            qnum_get_double(qobject_to(QNum, qdict_get(props, "size"))) >
            16 * MiB);
}

/*
 * Verdicts
 */

/* One sentence, for a human */
static void assert_sentence(const char *text, const char *input)
{
    if (strlen(text) < 8 || strchr(text, '\n') || strstr(text, "(null)") ||
        g_str_has_suffix(text, ".")) {
        g_error("not a sentence: '%s', for %s", text, input);
    }
}

/* Returns: true if QEMU took it */
static bool tell(QTestState *qts, const char *command, QDict *args)
{
    g_autoptr(GString) json = qobject_to_json(QOBJECT(args));
    QDict *rsp = qtest_qmp(qts, "{'execute': %s, 'arguments': %p}", command,
                           args);
    bool taken = qdict_haskey(rsp, "return");

    if (!taken) {
        assert_sentence(qdict_get_str(qdict_get_qdict(rsp, "error"), "desc"),
                        json->str);
    }
    qobject_unref(rsp);
    return taken;
}

/* What was generated, by what came of it */
static int taken_n, refused_n;

static void count(bool taken)
{
    taken_n += taken;
    refused_n += !taken;
}

static VM *start(void)
{
    VM *vm = vm_start(MACHINE);

    vm_wait_ready(vm);
    vm_fill(vm, 3);
    taken_n = refused_n = 0;
    return vm;
}

static void finish(VM *vm)
{
    vm_check(vm, 3);
    vm_assert_bound(vm, "ram0", 32 * MiB);
    vm_wait_gmem_fds(vm, 1);
    vm_quit(vm);
    g_test_message("%d taken, %d refused", taken_n, refused_n);
    g_assert_cmpint(taken_n, >, 0);
    g_assert_cmpint(refused_n, >, 0);
}

/*
 * Tests
 */

static QDict *any_object(void)
{
    QDict *props = qdict_new();

    for (int n = g_rand_int_range(rng, 0, 5); n > 0; n--) {
        const char *name = PICK(property);

        qdict_put_obj(props, name, chance(3) ? any_value() : fit_value(name));
    }
    if (!chance(8)) {
        qdict_put_obj(props, "size", fit_value("size"));
    }
    if (is_too_much(props)) {
        qdict_del(props, "prealloc");
    }
    if (chance(8)) {
        qdict_put_str(props, "qom-type", "memory-backend-memfd");
        qdict_put_str(props, "guest-memfd", "on");
    } else {
        qdict_put_str(props, "qom-type", GMEM);
    }
    qdict_put_str(props, "id", chance(50) ? PICK(word) : "m");
    return props;
}

static void test_object(void)
{
    int steps = begin(3000);
    VM *vm = start();

    for (int i = 0; i < steps; i++) {
        QDict *props = any_object();
        g_autofree char *id = g_strdup(qdict_get_str(props, "id"));
        QDict *id_args = qdict_new();
        bool taken = tell(vm->qts, "object-add", props);

        count(taken);
        /* Nothing is left of it, whether it came to be or not */
        qdict_put_str(id_args, "id", id);
        g_assert_true(tell(vm->qts, "object-del", id_args) == taken);
        if (i % 100 == 0) {
            vm_wait_gmem_fds(vm, 1);
        }
    }
    finish(vm);
}

static void test_set(void)
{
    static const char *const path[] = {
        "ram0", "/objects/ram0", "/machine", "/objects",
    };
    int steps = begin(2000);
    VM *vm = start();

    for (int i = 0; i < steps; i++) {
        const char *name = PICK(property);
        QDict *args = qdict_new();

        qdict_put_str(args, "path", PICK(path));
        qdict_put_str(args, "property", name);
        qdict_put_obj(args, "value", chance(2) ? any_value() : fit_value(name));
        count(tell(vm->qts, "qom-set", args));
    }
    finish(vm);
}

static void test_query(void)
{
    int steps = begin(300);
    VM *vm = start();

    for (int i = 0; i < steps; i++) {
        QDict *args = qdict_new();

        if (!chance(8)) {
            qdict_put_obj(args, PICK(property), any_value());
        }
        count(tell(vm->qts, "query-guest-memfd", args));
    }
    finish(vm);
}

/* As a user types it; commas and quotes come from the words */
static char *any_text(void)
{
    GString *text = g_string_new(GMEM ",id=m");

    if (!chance(4)) {
        g_string_append_printf(text, ",size=%" PRIu64, PICK(value));
    }
    for (int n = g_rand_int_range(rng, 0, 4); n > 0; n--) {
        const char *name = PICK(property);

        /* What would take all memory of the host */
        if (!g_str_equal(name, "prealloc")) {
            g_string_append_printf(text, ",%s=%s", name, PICK(word));
        }
    }
    return g_string_free(text, false);
}

static void test_monitor(void)
{
    int steps = begin(300);
    VM *vm = start();

    for (int i = 0; i < steps; i++) {
        g_autofree char *text = any_text();
        g_autofree char *added = qtest_hmp(vm->qts, "object_add %s", text);
        g_autofree char *deleted = qtest_hmp(vm->qts, "object_del m");
        /* Not before: it looks at each page of terabytes */
        g_autofree char *info = qtest_hmp(vm->qts, "info guest-memfd");

        g_strchomp(added);
        if (added[0]) {
            assert_sentence(added, text);
        }
        g_assert_true(!added[0] == !deleted[0]);
        g_assert_nonnull(strstr(info, "ram0"));
        count(!added[0]);
    }
    finish(vm);
}

/* A QEMU of its own, which ends by itself; it must not crash */
static void run(const char *args)
{
    g_autofree char *line = g_strdup_printf(
        "echo quit | timeout 600 %s -accel kvm -cpu " VM_CPU " -display none"
        " -nodefaults -monitor stdio -S %s", getenv("QTEST_QEMU_BINARY"), args);
    const char *argv[] = { "/bin/sh", "-c", line, NULL };
    g_autofree char *out = NULL, *err = NULL;
    g_auto(GStrv) lines = NULL;
    int status, errors = 0;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, &out,
                               &err, &status, NULL));
    lines = g_strsplit(err, "\n", 0);
    for (char **l = lines; *l; l++) {
        errors += (*l)[0] && !strstr(*l, "warning: ");
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != !!errors || errors > 1) {
        g_error("status 0x%x, '%s', for %s", status, err, args);
    }
    count(!errors);
}

static void assert_both(void)
{
    g_test_message("%d taken, %d refused", taken_n, refused_n);
    g_assert_cmpint(taken_n + refused_n, >, 0);
    g_assert_cmpint(refused_n, >, 0);
    taken_n = refused_n = 0;
}

static void test_command_line(void)
{
    int steps = begin(60);

    for (int i = 0; i < steps; i++) {
        g_autofree char *text = any_text();
        g_autofree char *object = g_shell_quote(text);
        g_autofree char *machine = g_shell_quote(PICK(word));
        g_autofree char *args = chance(2)
            ? g_strdup_printf("-machine none -object %s", object)
            : g_strdup_printf("-m 32M -machine " VM_TYPE ",guest-memfd=%s",
                              machine);

        run(args);
    }
    assert_both();
}

static void test_readconfig(void)
{
    g_autofree char *path = NULL;
    int steps = begin(40);
    int fd = g_file_open_tmp("guest-memfd-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    for (int i = 0; i < steps; i++) {
        g_autofree char *args = g_strdup_printf("-readconfig %s", path);
        g_autofree char *text = chance(2)
            ? g_strdup_printf("[object \"m\"]\nqom-type = \"" GMEM "\"\n"
                              "size = \"%" PRIu64 "\"\nkvm-bind = \"%s\"\n"
                              "[machine]\ntype = \"none\"\n", PICK(value),
                              PICK(word))
            : g_strdup_printf("[machine]\ntype = \"" VM_TYPE "\"\n"
                              "guest-memfd = \"%s\"\n"
                              "[memory]\nsize = \"32M\"\n", PICK(word));

        g_assert_true(g_file_set_contents(path, text, -1, NULL));
        run(args);
    }
    unlink(path);
    assert_both();
}

int main(int argc, char **argv)
{
    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    qtest_add_func("/guest-memfd/input/object", test_object);
    qtest_add_func("/guest-memfd/input/set", test_set);
    qtest_add_func("/guest-memfd/input/query", test_query);
    qtest_add_func("/guest-memfd/input/monitor", test_monitor);
    qtest_add_func("/guest-memfd/input/command-line", test_command_line);
    qtest_add_func("/guest-memfd/input/readconfig", test_readconfig);
    return g_test_run();
}
