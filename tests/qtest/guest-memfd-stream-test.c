/*
 * Migration streams that are cut short, of another size, or corrupted where
 * they announce RAM: the target refuses them and lives, or takes them where
 * nothing tells that they are wrong, and never crashes or waits for ever
 *
 * GUEST_MEMFD_SEED repeats or changes what is done to them, GUEST_MEMFD_STEPS
 * how often.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "guest-memfd/stream.h"
#include "guest-memfd/vm.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"

#define START_VM(size, extra) \
    vm_start("-machine " VM_TYPE ",memory-backend=ram0 -m " size " -object" \
             " memory-backend-guest-memfd,id=ram0,size=" size " " extra)

static char *tmp;
static uint8_t *stream;
static gsize stream_len;

static int number(const char *name, int fallback)
{
    return getenv(name) ? atoi(getenv(name)) : fallback;
}

/* The stream of a guest, most of whose memory is not zero */
static void record(void)
{
    g_autofree char *path = g_strdup_printf("%s/stream", tmp);
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    VM *vm = START_VM("32M", "");

    vm_wait_ready(vm);
    vm_fill_range(vm, VM_AT(16 * MiB), 4 * MiB, 1);
    migrate_qmp(vm->qts, NULL, uri, NULL, "{}");
    wait_for_migration_complete(vm->qts);
    vm_quit(vm);
    g_assert_true(g_file_get_contents(path, (char **)&stream, &stream_len,
                                      NULL));
    unlink(path);
}

/* Returns: whether the target took it */
static bool load(VM *vm, const uint8_t *data, size_t len)
{
    g_autofree char *path = g_strdup_printf("%s/bad", tmp);
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    g_autofree char *status = NULL;

    g_assert_true(g_file_set_contents(path, (char *)data, len, NULL));
    qtest_qmp_assert_success(vm->qts, "{'execute': 'migrate-incoming',"
        "'arguments': {'uri': %s, 'exit-on-error': false}}", uri);
    do {
        g_free(status);
        g_usleep(1000);
        status = migrate_query_status(vm->qts);
    } while (!g_str_equal(status, "failed") &&
             !g_str_equal(status, "completed"));
    unlink(path);
    /* It answers, and ends as it should */
    g_assert_true(vm_info_exists(vm, "ram0"));
    return g_str_equal(status, "completed");
}

static void test_whole(void)
{
    VM *vm = START_VM("32M", "-incoming defer");

    g_assert_true(load(vm, stream, stream_len));
    qtest_qmp_assert_success(vm->qts, "{'execute': 'cont'}");
    vm_check_range(vm, VM_AT(16 * MiB), 4 * MiB, 1);
    vm_quit(vm);
}

static void test_other_size(void)
{
    VM *vm = START_VM("64M", "-incoming defer -S");

    g_assert_false(load(vm, stream, stream_len));
    vm_quit(vm);
}

static void test_truncated(void)
{
    g_autoptr(GRand) rand =
        g_rand_new_with_seed(number("GUEST_MEMFD_SEED", 20261125));
    int steps = number("GUEST_MEMFD_STEPS", 8);

    for (int i = 0; i < steps; i++) {
        size_t len = g_rand_double(rand) * (stream_len - 1);
        VM *vm = START_VM("32M", "-incoming defer -S");

        g_test_message("%zu of %zu bytes", len, stream_len);
        /* What describes the devices comes last, and nobody reads it */
        if (load(vm, stream, len)) {
            g_assert_nonnull(memmem(stream, len, "\"devices\":", 10));
        }
        vm_quit(vm);
    }
}

/* Another header, name or size of a block */
static void corrupt(GRand *rand, uint8_t *data, size_t at)
{
    uint64_t header = ldq_be_p(data + at);

    switch (g_rand_int_range(rand, 0, 5)) {
    case 0:
        stq_be_p(data + at, header ^ 1ULL << g_rand_int_range(rand, 0, 12));
        break;
    case 1:
        stq_be_p(data + at, header ^ 1ULL << g_rand_int_range(rand, 12, 64));
        break;
    case 2:
        stq_be_p(data + at, (uint64_t)g_rand_int(rand) << 32 |
                            g_rand_int(rand));
        break;
    case 3:
        /* Just behind the end of RAM, or of all */
        stq_be_p(data + at, (header & 0xfff) |
                 (g_rand_boolean(rand) ? 32 * MiB : -4096ULL));
        break;
    default:
        data[at + 8 + g_rand_int_range(rand, 0, 24)] = g_rand_int(rand);
        break;
    }
}

static void test_corrupt(void)
{
    g_autoptr(GRand) rand =
        g_rand_new_with_seed(number("GUEST_MEMFD_SEED", 20261125));
    g_autoptr(GArray) headers = stream_find_headers(stream, stream_len);
    int steps = number("GUEST_MEMFD_STEPS", 24), refused = 0;

    g_assert_cmpint(headers->len, >, 1024);
    for (int i = 0; i < steps; i++) {
        g_autofree uint8_t *data = g_memdup2(stream, stream_len);
        VM *vm = START_VM("32M", "-incoming defer -S");
        /* The list of blocks more often than others */
        size_t n = i % 4 ? g_rand_int_range(rand, 0, headers->len) : 0;
        size_t at = g_array_index(headers, size_t, n);

        corrupt(rand, data, at);
        g_test_message("header %zu at %zu: 0x%" PRIx64 ", was 0x%" PRIx64, n,
                       at, ldq_be_p(data + at), ldq_be_p(stream + at));
        refused += !load(vm, data, stream_len);
        vm_quit(vm);
    }
    g_test_message("%d of %d refused", refused, steps);
    g_assert_cmpint(refused, >, 0);
}

int main(int argc, char **argv)
{
    int ret;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    record();
    qtest_add_func("/guest-memfd/stream/whole", test_whole);
    qtest_add_func("/guest-memfd/stream/other-size", test_other_size);
    qtest_add_func("/guest-memfd/stream/truncated", test_truncated);
    qtest_add_func("/guest-memfd/stream/corrupt", test_corrupt);
    ret = g_test_run();
    g_free(stream);
    rmdir(tmp);
    return ret;
}
