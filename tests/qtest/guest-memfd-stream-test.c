/*
 * Migration streams that are cut short, of another size, or corrupted where
 * they announce RAM: the target refuses them and lives, or takes them where
 * nothing tells that they are wrong, and never crashes or waits for ever.
 * And one that ends early by right.
 *
 * GUEST_MEMFD_SEED repeats or changes what is done to them, GUEST_MEMFD_STEPS
 * how often.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/sockets.h"
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

/*
 * The first of the headers that follows a row of pages of RAM with contents,
 * and is of such a page itself.  A row is enough for the target to make memory
 * ahead.
 *
 * @pages: set to how many different pages with contents there are until then
 */
static size_t find_row(GArray *headers, size_t *pages)
{
    const int row = 64;
    g_autoptr(GHashTable) found = g_hash_table_new(NULL, NULL);
    uint64_t next = 0;
    bool ram0 = false;
    int run = 0;

    for (size_t n = 0; n < headers->len; n++) {
        const uint8_t *at = stream + g_array_index(headers, size_t, n);
        uint64_t header = ldq_be_p(at), flags = header % STREAM_PAGE_SIZE;

        if (flags == STREAM_EOS || flags == STREAM_MEM_SIZE) {
            run = 0;
            continue;
        }
        if (!(flags & STREAM_CONTINUE)) {
            ram0 = !memcmp(at + 8, "\004ram0", 5);
        }
        if (!ram0 || flags & STREAM_ZERO) {
            continue;
        }
        run = header - flags == next ? run + 1 : 0;
        if (run > row) {
            *pages = g_hash_table_size(found);
            return n;
        }
        next = header - flags + STREAM_PAGE_SIZE;
        g_hash_table_add(found, GSIZE_TO_POINTER(next));
    }
    g_assert_not_reached();
}

/*
 * In the middle of a row, a part of the stream ends, and the rest of the memory
 * never comes, as if the guest had told that it is free.  What was made for it
 * goes.
 */
static void test_row_ends(void)
{
    g_autofree char *path = g_strdup_printf("%s/socket", tmp);
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    g_autoptr(GArray) headers = stream_find_headers(stream, stream_len);
    size_t pages, cut, end;
    VM *vm = START_VM("32M", "-incoming defer -S");
    int fd;

    cut = g_array_index(headers, size_t, find_row(headers, &pages));
    end = g_array_index(headers, size_t, headers->len - 1);
    g_assert_cmphex(ldq_be_p(stream + end), ==, STREAM_EOS);
    qtest_qmp_assert_success(vm->qts, "{'execute': 'migrate-incoming',"
        "'arguments': {'uri': %s, 'exit-on-error': false}}", uri);
    fd = unix_connect(path, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(qemu_write_full(fd, stream, cut), ==, cut);
    VM_WAIT(vm_info_number(vm, "ram0", "allocated") >
            pages * STREAM_PAGE_SIZE);
    g_assert_cmpint(qemu_write_full(fd, stream + end, stream_len - end),
                    ==, stream_len - end);
    close(fd);
    wait_for_migration_complete(vm->qts);
    g_assert_cmpuint(vm_info_number(vm, "ram0", "allocated"), ==,
                     pages * STREAM_PAGE_SIZE);
    vm_quit(vm);
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
    qtest_add_func("/guest-memfd/stream/row-ends", test_row_ends);
    ret = g_test_run();
    g_free(stream);
    rmdir(tmp);
    return ret;
}
