/*
 * Memory that the guest does not use stays unused: RAM is migrated, saved,
 * loaded and dumped without filling its holes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "guest-memfd/file.h"
#include "guest-memfd/snapshot.h"
#include "guest-memfd/virtio.h"
#include "guest-memfd/vm.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"

#define RAM "256M"
#define RAM_SIZE (256 * MiB)
/* What the guest uses, besides what it is made of itself */
#define USED VM_AT(96 * MiB)
#define USED_SIZE (8 * MiB)
/* ... and does not use */
#define UNUSED VM_AT(128 * MiB)
#define UNUSED_SIZE (96 * MiB)
/* Host memory that a test may cost for other reasons: a few pages of devices */
#define SLACK MiB

static const char *ended[] = { "completed", "failed", NULL };
static char *tmp;

typedef struct Case {
    const char *name;
    const char *transport;
    const char *src, *dst;          /* backend of each side; default: ours */
    const char *cap[2];
    const char *param, *value;
} Case;

#define GMEM "memory-backend-guest-memfd"

static VM *start(const char *backend, const char *extra)
{
    return vm_start("-machine " VM_TYPE ",memory-backend=ram0 -m " RAM
                    " -object %s,id=ram0,share=on,size=" RAM " %s",
                    backend ?: GMEM, extra);
}

static uint64_t allocated(VM *vm)
{
    return vm_info_number(vm, "ram0", "allocated");
}

/* Use some of the memory; what is allocated then is just what exists */
static uint64_t use_memory(VM *vm)
{
    GmemFile *file;
    uint64_t bytes;

    vm_fill_range(vm, USED, USED_SIZE, 1);
    file = gmem_file_open(vm, RAM_SIZE);
    bytes = gmem_file_resident(file, 0, RAM_SIZE);
    gmem_file_close(file);
    g_assert_cmpuint(bytes, >=, USED_SIZE);
    g_assert_cmpuint(bytes, <, USED_SIZE + 24 * MiB);
    g_assert_cmpuint(allocated(vm), ==, bytes);
    return bytes;
}

static void check_memory(VM *vm)
{
    vm_check_range(vm, USED, USED_SIZE, 1);
    vm_check_zero(vm, UNUSED, UNUSED_SIZE);
}

static void test_allocated(void)
{
    VM *vm = start(NULL, "");
    uint64_t before;

    vm_wait_ready(vm);
    before = allocated(vm);
    vm_write64(vm, UNUSED, 1);
    vm_write64(vm, UNUSED + 5 * 64 * KiB, 1);
    g_assert_cmpuint(allocated(vm), ==,
                     before + 2 * qemu_real_host_page_size());
    vm_quit(vm);
}

static void set_up(VM *vm, const Case *c)
{
    for (int i = 0; i < ARRAY_SIZE(c->cap) && c->cap[i]; i++) {
        migrate_set_capability(vm->qts, c->cap[i], true);
    }
    if (c->param) {
        migrate_set_parameter_str(vm->qts, c->param, c->value);
    }
}

static void test_migrate(const void *data)
{
    const Case *c = data;
    bool file = g_str_equal(c->transport, "file");
    g_autofree char *uri = g_strdup_printf("%s:%s/migration", c->transport,
                                           tmp);
    VM *src = start(c->src, ""), *dst;
    uint64_t before = 0;

    vm_wait_ready(src);
    if (c->src) {
        vm_fill_range(src, USED, USED_SIZE, 1);
    } else {
        before = use_memory(src);
    }
    dst = start(c->dst, "-incoming defer");
    set_up(src, c);
    set_up(dst, c);
    migrate_set_parameter_int(src->qts, "max-bandwidth", 0);
    if (!file) {
        migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    }
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    wait_for_migration_complete(src->qts);
    if (file) {
        migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    }
    wait_for_migration_complete(dst->qts);
    if (!c->src) {
        g_assert_cmpuint(allocated(src), <=, before + SLACK);
    }
    if (!c->dst) {
        g_assert_cmpuint(allocated(dst), <=,
                         (before ?: USED_SIZE + 24 * MiB) + SLACK);
    }
    if (file) {
        qtest_qmp_assert_success(dst->qts, "{'execute': 'cont'}");
    }
    check_memory(dst);
    vm_quit(dst);
    vm_quit(src);
}

static const Case migrations[] = {
    { "unix", "unix" },
    { "multifd", "unix", .cap = { "multifd" } },
    { "multifd/legacy", "unix", .cap = { "multifd" },
      .param = "zero-page-detection", .value = "legacy" },
    { "multifd/none", "unix", .cap = { "multifd" },
      .param = "zero-page-detection", .value = "none" },
    { "none", "unix", .param = "zero-page-detection", .value = "none" },
    { "xbzrle", "unix", .cap = { "xbzrle" } },
    { "file", "file" },
    { "mapped-ram", "file", .cap = { "mapped-ram" } },
    { "mapped-ram/multifd", "file", .cap = { "mapped-ram", "multifd" } },
    { "from-memfd", "unix", .src = "memory-backend-memfd" },
    { "to-memfd", "unix", .dst = "memory-backend-memfd" },
};

/* How often the migration has synchronised */
static uint64_t syncs(VM *vm)
{
    return read_ram_property_int(vm->qts, "dirty-sync-count");
}

static uint64_t remaining(VM *vm)
{
    return read_ram_property_int(vm->qts, "remaining");
}

/* How far the first pass is; it begins with ram0, the largest block */
static uint64_t sent(VM *vm)
{
    return read_ram_property_int(vm->qts, "total") - remaining(vm);
}

static void migrate_last_pass(VM *src, VM *dst)
{
    migrate_continue(src->qts, "pre-switchover");
    wait_for_migration_complete(src->qts);
    wait_for_migration_complete(dst->qts);
}

/*
 * Pages that come in a row make the target look ahead, into small holes: they
 * stay, and behind the last one, nothing is allocated either
 */
static void test_look_ahead(void)
{
    const uint64_t part = 160 * KiB, full = 128 * KiB;
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    VM *src = start(NULL, ""), *dst;
    uint64_t before;

    vm_wait_ready(src);
    for (int i = 0; i < 96; i++) {
        vm_fill_range(src, USED + i * part, full, i);
    }
    before = allocated(src);
    dst = start(NULL, "-incoming defer");
    migrate_set_parameter_int(src->qts, "max-bandwidth", 0);
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    wait_for_migration_complete(src->qts);
    wait_for_migration_complete(dst->qts);
    g_assert_cmpuint(allocated(dst), <=, before + SLACK);
    for (int i = 0; i < 96; i++) {
        vm_check_range(dst, USED + i * part, full, i);
        vm_check_zero(dst, USED + i * part + full, part - full);
    }
    vm_quit(dst);
    vm_quit(src);
}

/*
 * The guest fills a hole while the migration runs, after it was taken for one
 * (the first pass is over) and, in pages that are sent again and again, at any
 * time: it arrives.
 */
static void test_write_into_hole(void)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    VM *src = start(NULL, ""), *dst = start(NULL, "-incoming defer");

    vm_wait_ready(src);
    vm_fill_range(src, USED, USED_SIZE, 1);
    migrate_set_capability(src->qts, "pause-before-switchover", true);
    migrate_set_parameter_int(src->qts, "downtime-limit", 1);
    /* In 1 ms that is a page: also a starved guest writes more */
    migrate_set_parameter_int(src->qts, "max-bandwidth", 4 * MiB);
    vm_do(src, "count %" PRIu64 " %" PRIu64, VM_AT(64 * MiB), 16 * MiB);
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    VM_WAIT(syncs(src) > 1);
    g_assert_cmpuint(allocated(src), <, 64 * MiB);
    /* Any line ends the count, which is checked then */
    g_free(vm_command(src, "stop"));
    vm_fill_range(src, UNUSED, 4 * MiB, 2);
    vm_write64(src, UNUSED + 32 * MiB, 0x1234);
    migrate_set_parameter_int(src->qts, "max-bandwidth", 0);
    migrate_set_parameter_int(src->qts, "downtime-limit", 60 * 1000);
    wait_for_migration_status(src->qts, "pre-switchover", ended);
    migrate_last_pass(src, dst);
    vm_check_range(dst, USED, USED_SIZE, 1);
    vm_check_range(dst, UNUSED, 4 * MiB, 2);
    g_assert_cmphex(vm_read64(dst, UNUSED + 32 * MiB), ==, 0x1234);
    vm_check_zero(dst, UNUSED + 33 * MiB, 32 * MiB);
    vm_quit(dst);
    vm_quit(src);
}

/*
 * The guest fills holes that the migration has still to come to, in chunks of
 * the dirty bitmap that are cleared when it comes there: these writes are not
 * logged, so nobody may know from before that there was a hole.
 */
static void test_write_ahead(void)
{
    const uint64_t chunk = 256 * KiB, size = 16 * MiB;
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    VM *src = start(NULL, "-global migration.x-clear-bitmap-shift=6");
    VM *dst = start(NULL, "-incoming defer");
    uint64_t at;

    vm_wait_ready(src);
    for (at = UNUSED; at < UNUSED + size; at += 2 * chunk) {
        vm_fill_range(src, at, chunk, 1);
    }
    migrate_set_parameter_int(src->qts, "downtime-limit", 1);
    migrate_set_parameter_int(src->qts, "max-bandwidth", 256 * KiB);
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    VM_WAIT(syncs(src) && sent(src) > UNUSED - VM_RAM_START + 2 * MiB);
    /* Stay there */
    migrate_set_parameter_int(src->qts, "max-bandwidth", 4096);
    for (at = UNUSED; at < UNUSED + size; at += 2 * chunk) {
        vm_write64(src, at + chunk, 0x1234);
    }
    g_assert_cmpint(syncs(src), ==, 1);
    g_assert_cmpuint(sent(src), <, UNUSED - VM_RAM_START + size - 2 * MiB);
    migrate_set_parameter_int(src->qts, "max-bandwidth", 0);
    migrate_set_parameter_int(src->qts, "downtime-limit", 60 * 1000);
    wait_for_migration_complete(src->qts);
    wait_for_migration_complete(dst->qts);
    for (at = UNUSED; at < UNUSED + size; at += 2 * chunk) {
        vm_check_range(dst, at, chunk, 1);
        g_assert_cmphex(vm_read64(dst, at + chunk), ==, 0x1234);
    }
    vm_quit(dst);
    vm_quit(src);
}

/*
 * With auto-converge, the main thread synchronises in the middle of a pass.
 * Pages are dirty when the pass begins, and have become holes.  The guest fills
 * them after they were taken for holes, which is logged, and merged into what
 * is still to be sent: nobody may send a hole then.
 */
static void test_write_before_sync(void)
{
    const uint64_t from = VM_AT(64 * MiB), size = 128 * MiB, to = from + size;
    /* As many as are asked for at once: the last page of each is a hole */
    const uint64_t window = 16 * MiB;
    const uint64_t behind = to, behind_size = 32 * MiB;
    const int64_t slow = 512 * KiB, stay = 4096;
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    VM *src = start(NULL, BALLOON_DEVICE);
    VM *dst = start(NULL, BALLOON_DEVICE " -incoming defer");
    VirtioDriver *balloon;
    uint64_t before;

    vm_wait_ready(src);
    balloon = balloon_start(src);
    vm_fill_range(src, behind, behind_size, 2);
    migrate_set_capability(src->qts, "auto-converge", true);
    migrate_set_parameter_int(src->qts, "downtime-limit", 1);
    migrate_set_parameter_int(src->qts, "max-bandwidth", slow);
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");

    /* The first pass has left behind what is written now */
    VM_WAIT(syncs(src) && sent(src) > behind - VM_RAM_START + MiB);
    migrate_set_parameter_int(src->qts, "max-bandwidth", stay);
    vm_fill_range(src, from, size, 1);
    for (uint64_t at = from + window; at <= to; at += window) {
        balloon_inflate(balloon, at - 4096, 4096);
    }
    /* So that it is soon over */
    balloon_inflate(balloon, behind, behind_size);
    g_assert_cmpint(syncs(src), ==, 1);
    migrate_set_parameter_int(src->qts, "max-bandwidth", slow);

    /* The second has begun, and has looked for holes */
    VM_WAIT(syncs(src) > 1 && remaining(src) < size - MiB);
    migrate_set_parameter_int(src->qts, "max-bandwidth", stay);
    for (uint64_t at = from + window; at <= to; at += window) {
        balloon_deflate(balloon, at - 4096, 4096);
        vm_write64(src, at - 4096, 0x1234);
    }
    /* It is the main thread that does this: the pass goes on */
    before = syncs(src);
    VM_WAIT(syncs(src) > before);
    g_assert_cmpuint(remaining(src), >, window);

    migrate_set_parameter_int(src->qts, "max-bandwidth", 0);
    migrate_set_parameter_int(src->qts, "downtime-limit", 60 * 1000);
    wait_for_migration_complete(src->qts);
    wait_for_migration_complete(dst->qts);
    virtio_free(balloon);
    for (uint64_t at = from + window; at <= to; at += window) {
        g_assert_cmphex(vm_read64(dst, at - 4096), ==, 0x1234);
        vm_check_range(dst, at - window, window - 4096, 1);
    }
    vm_quit(dst);
    vm_quit(src);
}

/* Stop src, and let it send all pages once: the next pass waits */
static void migrate_between_passes(VM *src, VM *dst)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);

    vm_wait_ready(src);
    qtest_qmp_assert_success(src->qts, "{'execute': 'stop'}");
    migrate_set_capability(src->qts, "pause-before-switchover", true);
    migrate_set_parameter_int(src->qts, "max-bandwidth", 0);
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    wait_for_migration_status(src->qts, "pre-switchover", ended);
}

/*
 * What was a hole in one pass is asked for anew in the next, also if that
 * goes on where the other ended: the VM is stopped, so that no other page is
 * dirty, and a device of the host, so to speak, writes to the last one.
 */
static void test_write_between_passes(void)
{
    const uint64_t last = VM_AT(RAM_SIZE - 4096);
    VM *src = start(NULL, ""), *dst = start(NULL, "-incoming defer");

    migrate_between_passes(src, dst);
    qtest_writeq(src->qts, last, 0x1234);
    migrate_last_pass(src, dst);
    g_assert_cmphex(qtest_readq(dst->qts, last), ==, 0x1234);
    vm_quit(dst);
    vm_quit(src);
}

/* ... or in another block of RAM: a hole in one tells nothing of the next */
static void test_write_in_two_blocks(void)
{
    const char *dimm = "-m slots=1,maxmem=8G -object " GMEM ",id=ram1,size=64M"
                       " -device pc-dimm,memdev=ram1,addr=0x100000000";
    const uint64_t at = 32 * MiB, dimm_at = 4 * GiB + at + 4096;
    g_autofree char *incoming = g_strdup_printf("%s -incoming defer", dimm);
    VM *src = start(NULL, dimm), *dst = start(NULL, incoming);

    migrate_between_passes(src, dst);
    qtest_writeq(src->qts, VM_AT(at), 0x1234);
    qtest_writeq(src->qts, dimm_at, 0x5678);
    migrate_last_pass(src, dst);
    g_assert_cmphex(qtest_readq(dst->qts, VM_AT(at)), ==, 0x1234);
    g_assert_cmphex(qtest_readq(dst->qts, dimm_at), ==, 0x5678);
    vm_quit(dst);
    vm_quit(src);
}

static VM *start_with_disk(const char *backend)
{
    g_autofree char *disk = snapshot_disk(tmp);

    return start(backend, disk);
}

static void dump(VM *vm, const char *path, const char *format)
{
    g_autofree char *protocol = g_strdup_printf("file:%s", path);

    qtest_qmp_assert_success(vm->qts, "{'execute': 'dump-guest-memory',"
                             "'arguments': {'paging': false,"
                             "'protocol': %s, 'format': %s}}",
                             protocol, format);
}

/* Nine tenths of a full guest are in a balloon: nothing may bring them back */
static void test_ballooned(void)
{
    static const struct {
        uint64_t start, size;
    } given[] = {
        { VM_AT(16 * MiB), 80 * MiB }, { VM_AT(104 * MiB), 152 * MiB },
    };
    g_autofree char *disk = snapshot_disk(tmp);
    g_autofree char *extra = g_strdup_printf(BALLOON_DEVICE " %s", disk);
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    g_autofree char *out = g_strdup_printf("%s/out", tmp);
    VM *vm = start(NULL, extra), *dst;
    VirtioDriver *balloon;
    uint64_t before;

    vm_wait_ready(vm);
    vm_fill(vm, 1);
    balloon = balloon_start(vm);
    for (int i = 0; i < ARRAY_SIZE(given); i++) {
        balloon_inflate(balloon, given[i].start, given[i].size);
    }
    virtio_free(balloon);
    vm_fill_range(vm, USED, USED_SIZE, 1);
    before = allocated(vm);
    g_assert_cmpuint(before, <, RAM_SIZE / 10);

    snapshot_save(vm, "one");
    g_assert_cmpuint(allocated(vm), <=, before + SLACK);
    snapshot_load(vm, "one");
    g_assert_cmpuint(allocated(vm), <=, before + SLACK);
    dump(vm, out, "elf");
    g_assert_cmpuint(allocated(vm), <=, before + SLACK);
    unlink(out);

    dst = start(NULL, BALLOON_DEVICE " -incoming defer");
    migrate_set_parameter_int(vm->qts, "max-bandwidth", 0);
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(vm->qts, dst->qts, uri, NULL, "{}");
    wait_for_migration_complete(vm->qts);
    wait_for_migration_complete(dst->qts);
    g_assert_cmpuint(allocated(vm), <=, before + SLACK);
    g_assert_cmpuint(allocated(dst), <=, before + SLACK);
    vm_quit(vm);

    vm_check_range(dst, USED, USED_SIZE, 1);
    for (int i = 0; i < ARRAY_SIZE(given); i++) {
        vm_check_zero(dst, given[i].start, given[i].size);
    }
    vm_quit(dst);
    snapshot_disk_remove(tmp);
}

/* A snapshot brings the holes back, and zeroes with them */
static void test_snapshot(void)
{
    VM *vm = start_with_disk(NULL);
    uint64_t before;

    vm_wait_ready(vm);
    before = use_memory(vm);
    snapshot_save(vm, "one");
    g_assert_cmpuint(allocated(vm), <=, before + SLACK);
    vm_fill_range(vm, UNUSED, UNUSED_SIZE, 2);
    /* A page by itself, which is not worth punching */
    vm_write64(vm, UNUSED + UNUSED_SIZE + MiB, 1);
    g_assert_cmpuint(allocated(vm), >=, before + UNUSED_SIZE);
    snapshot_load(vm, "one");
    g_assert_cmpuint(allocated(vm), <=, before + SLACK);
    check_memory(vm);
    g_assert_cmphex(vm_read64(vm, UNUSED + UNUSED_SIZE + MiB), ==, 0);
    vm_quit(vm);
    snapshot_disk_remove(tmp);
}

/* Memory that was paid for in advance stays, and is zero */
static void test_snapshot_of_preallocated(void)
{
    VM *vm = start_with_disk(GMEM ",prealloc=on");
    uint64_t used;

    vm_wait_ready(vm);
    snapshot_save(vm, "one");
    vm_fill_range(vm, UNUSED, UNUSED_SIZE, 2);
    used = allocated(vm);
    snapshot_load(vm, "one");
    g_assert_cmpuint(allocated(vm), >=, used);
    vm_check_zero(vm, UNUSED, UNUSED_SIZE);
    vm_quit(vm);
    snapshot_disk_remove(tmp);
}

static void assert_file_is_zero(const char *path, uint64_t size)
{
    g_autofree char *content = NULL;
    gsize length;

    g_assert_true(g_file_get_contents(path, &content, &length, NULL));
    g_assert_cmpuint(length, ==, size);
    g_assert_true(buffer_is_zero(content, length));
}

/* Those who read all of RAM */
/* What is read at once has the end of a page, and the beginning of a hole */
static void test_read_across(void)
{
    const uint64_t page_size = qemu_real_host_page_size(), part = 512;
    g_autofree char *out = g_strdup_printf("%s/out", tmp);
    g_autofree uint64_t *data = NULL;
    VM *vm = start(NULL, "");
    uint64_t before;
    gsize size;

    vm_wait_ready(vm);
    vm_write64(vm, UNUSED + page_size - part, 0x1234);
    before = allocated(vm);
    qtest_qmp_assert_success(vm->qts, "{'execute': 'pmemsave', 'arguments': {"
                             "'val': %" PRIu64 ", 'size': %" PRIu64
                             ", 'filename': %s}}", UNUSED + page_size - part,
                             2 * part, out);
    g_assert_cmpuint(allocated(vm), ==, before);
    g_assert_true(g_file_get_contents(out, (char **)&data, &size, NULL));
    g_assert_cmpuint(size, ==, 2 * part);
    g_assert_cmphex(le64_to_cpu(data[0]), ==, 0x1234);
    for (int i = 1; i < size / sizeof(*data); i++) {
        g_assert_cmphex(data[i], ==, 0);
    }
    vm_quit(vm);
    unlink(out);
}

static void test_readers(void)
{
    g_autofree char *out = g_strdup_printf("%s/out", tmp);
    static const char *const formats[] = { "elf", "kdump-zlib" };
    VM *vm = start(NULL, "");
    uint64_t before;
    bool measured;

    vm_wait_ready(vm);
    before = use_memory(vm);
    for (int i = 0; i < ARRAY_SIZE(formats); i++) {
        dump(vm, out, formats[i]);
        g_assert_cmpuint(allocated(vm), <=, before + SLACK);
    }
    qtest_qmp_assert_success(vm->qts, "{'execute': 'pmemsave', 'arguments': {"
                             "'val': %" PRIu64 ", 'size': %" PRIu64
                             ", 'filename': %s}}", UNUSED, UNUSED_SIZE, out);
    assert_file_is_zero(out, UNUSED_SIZE);
    g_assert_cmpuint(allocated(vm), <=, before + SLACK);

    qtest_qmp_assert_success(vm->qts, "{'execute': 'calc-dirty-rate',"
                             "'arguments': {'calc-time': 1,"
                             "'sample-pages': 4096}}");
    do {
        g_autoptr(QDict) rsp = NULL;

        g_usleep(20 * 1000);
        rsp = qtest_qmp_assert_success_ref(vm->qts,
                                           "{'execute': 'query-dirty-rate'}");
        measured = g_str_equal(qdict_get_str(rsp, "status"), "measured");
    } while (!measured);
    g_assert_cmpuint(allocated(vm), <=, before + SLACK);
    check_memory(vm);
    vm_quit(vm);
    unlink(out);
}

int main(int argc, char **argv)
{
    g_autofree char *path = NULL;
    int ret;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    qtest_add_func("/guest-memfd/holes/allocated", test_allocated);
    for (int i = 0; i < ARRAY_SIZE(migrations); i++) {
        g_autofree char *name = g_strdup_printf("/guest-memfd/holes/migrate/%s",
                                                migrations[i].name);

        qtest_add_data_func(name, &migrations[i], test_migrate);
    }
    qtest_add_func("/guest-memfd/holes/look-ahead", test_look_ahead);
    qtest_add_func("/guest-memfd/holes/write-while-migrating",
                   test_write_into_hole);
    qtest_add_func("/guest-memfd/holes/write-ahead", test_write_ahead);
    qtest_add_func("/guest-memfd/holes/write-before-sync",
                   test_write_before_sync);
    qtest_add_func("/guest-memfd/holes/write-between-passes",
                   test_write_between_passes);
    qtest_add_func("/guest-memfd/holes/write-in-two-blocks",
                   test_write_in_two_blocks);
    qtest_add_func("/guest-memfd/holes/snapshot", test_snapshot);
    qtest_add_func("/guest-memfd/holes/snapshot/prealloc",
                   test_snapshot_of_preallocated);
    qtest_add_func("/guest-memfd/holes/ballooned", test_ballooned);
    qtest_add_func("/guest-memfd/holes/readers", test_readers);
    qtest_add_func("/guest-memfd/holes/read-across", test_read_across);
    ret = g_test_run();
    path = g_strdup_printf("%s/migration", tmp);
    unlink(path);
    rmdir(tmp);
    return ret;
}
