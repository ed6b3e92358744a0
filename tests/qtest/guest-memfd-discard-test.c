/*
 * guest_memfd RAM that goes back to the host: balloon, virtio-mem, unplug, exit
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "guest-memfd/file.h"
#include "guest-memfd/virtio.h"
#include "guest-memfd/plug.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"

/*
 * Offsets into guest RAM and its file: rings, then what the guest counts in
 * while the rest is discarded, then the range that is, with the neighbours
 * that must not be.
 */
#define RAM         (256 * MiB)
#define COUNT       (16 * MiB)
#define COUNT_LEN   (16 * MiB)
#define GONE        (96 * MiB)
#define GONE_LEN    (64 * MiB)
#define FILLED      (GONE - 2 * MiB)
#define FILLED_LEN  (GONE_LEN + 4 * MiB)
#define FILLED_END  (FILLED + FILLED_LEN)
#define GONE_END    (GONE + GONE_LEN)

#define SEED        11

static VM *start(const VMKind *c, const char *devices)
{
    VM *vm = vm_start("-machine %s,memory-backend=ram0 -m 256M -smp %d -object"
                      " memory-backend-guest-memfd,id=ram0,size=256M,"
                      "kvm-bind=on%s", c->machine, c->cpus, devices);

    vm_wait_ready(vm);
    return vm;
}

/* @file holds guest RAM of address @base; GONE was discarded just now */
static void assert_gone(VM *vm, GmemFile *file)
{
    const uint64_t part = GONE_LEN / 4;

    g_assert_cmpint(gmem_file_resident(file, GONE, GONE_LEN), ==, 0);
    g_assert_cmpint(gmem_file_resident(file, FILLED, GONE - FILLED), ==,
                    GONE - FILLED);
    g_assert_cmpint(gmem_file_resident(file, GONE_END, FILLED_END - GONE_END),
                    ==, FILLED_END - GONE_END);

    /* The host looks at a part first, then the guest, then the host at all */
    gmem_file_assert_zero(file, GONE, part);
    vm_check_zero(vm, VM_AT(GONE), GONE_LEN);
    gmem_file_assert_zero(file, GONE, GONE_LEN);
    vm_check_range(vm, VM_AT(FILLED), GONE - FILLED, SEED);
    vm_check_range(vm, VM_AT(GONE_END), FILLED_END - GONE_END, SEED);
}

typedef void discard_fn(VirtioDriver *driver, uint64_t start, uint64_t len);

static void balloon(const VMKind *c, discard_fn *discard)
{
    VM *vm = start(c, BALLOON_DEVICE);
    VirtioDriver *driver = balloon_start(vm);
    GmemFile *file = gmem_file_open(vm, RAM);
    int64_t before;

    vm_fill_range(vm, VM_AT(FILLED), FILLED_LEN, SEED);
    before = unevictable();
    vm_start_count(vm, c->cpus, VM_AT(COUNT), COUNT_LEN);
    discard(driver, VM_AT(GONE), GONE_LEN);
    wait_unevictable(before, -(int64_t)GONE_LEN);
    vm_stop_count(vm);
    assert_gone(vm, file);

    /* The guest takes the pages back, and can use them */
    balloon_deflate(driver, VM_AT(GONE), GONE_LEN);
    vm_fill_range(vm, VM_AT(GONE), GONE_LEN, SEED);
    vm_check_range(vm, VM_AT(FILLED), FILLED_LEN, SEED);
    vm_assert_bound(vm, "ram0", RAM);

    gmem_file_close(file);
    virtio_free(driver);
    vm_quit(vm);
}

static void test_balloon(const void *data)
{
    balloon(data, balloon_inflate);
}

static void test_report(const void *data)
{
    balloon(data, balloon_report);
}

/* One page at a time, and none but that page */
static void test_balloon_page(const void *data)
{
    VM *vm = start(data, BALLOON_DEVICE);
    VirtioDriver *driver = balloon_start(vm);
    GmemFile *file = gmem_file_open(vm, RAM);
    const uint64_t page = qemu_real_host_page_size();

    vm_fill_range(vm, VM_AT(GONE), 2 * MiB, SEED);
    for (uint64_t at = page; at < 2 * MiB; at += 64 * page) {
        uint64_t a = VM_AT(GONE + at);

        balloon_inflate(driver, a, page);
        gmem_file_assert_zero(file, GONE + at, page);
        vm_check_zero(vm, a, page);
        vm_check_range(vm, a - page, page, SEED);
        vm_check_range(vm, a + page, page, SEED);
    }
    gmem_file_close(file);
    virtio_free(driver);
    vm_quit(vm);
}

/*
 * A migration leaves out what the guest says is free, and only that.  The
 * guest takes back the end of it while the migration goes on: that arrives.
 */
static void test_hint(const void *data)
{
    const VMKind *c = data;
    const uint64_t taken = GONE_END - COUNT_LEN;
    g_autofree char *tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    VM *src = start(c, HINTING_BALLOON_DEVICE);
    VM *dst = vm_start("-machine %s,memory-backend=ram0 -m 256M -smp %d -object"
                       " memory-backend-guest-memfd,id=ram0,size=256M,"
                       "kvm-bind=on" HINTING_BALLOON_DEVICE
                       " -incoming defer -S",
                       c->machine, c->cpus);
    VirtioDriver *driver = balloon_start(src);
    GmemFile *from = gmem_file_open(src, RAM), *to = gmem_file_open(dst, RAM);

    vm_fill_range(src, VM_AT(COUNT), COUNT_LEN, SEED);
    vm_fill_range(src, VM_AT(FILLED), FILLED_LEN, SEED);

    /* So slow that it comes to no page of these before the hint */
    migrate_set_parameter_int(src->qts, "max-bandwidth", 16 * KiB);
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    balloon_hint(driver, VM_AT(GONE), GONE_LEN);
    g_assert_cmpint(read_ram_property_int(src->qts, "dirty-sync-count"), ==,
                    1);
    vm_assert_unbound(src, "ram0", "dirty-log");

    /* All of it, before a guest that starves has counted in any */
    vm_fill_range(src, VM_AT(taken), COUNT_LEN, SEED + 1);
    vm_start_count(src, c->cpus, VM_AT(taken), COUNT_LEN);
    migrate_set_parameter_int(src->qts, "downtime-limit", 60 * 1000);
    migrate_set_parameter_int(src->qts, "max-bandwidth", 0);
    wait_for_migration_complete(src->qts);
    wait_for_migration_complete(dst->qts);

    /* Not even as zeroes: these would leave pages behind */
    g_assert_cmpint(gmem_file_resident(to, GONE, taken - GONE), ==, 0);
    g_assert_true(memcmp(from->map, to->map, GONE) == 0);
    g_assert_true(memcmp(from->map + taken, to->map + taken,
                         RAM - taken) == 0);

    dst->count = src->count;
    qtest_qmp_assert_success(dst->qts, "{'execute': 'cont'}");
    vm_stop_count(dst);
    vm_check_zero(dst, VM_AT(GONE), taken - GONE);
    vm_check_range(dst, VM_AT(FILLED), GONE - FILLED, SEED);
    vm_check_range(dst, VM_AT(GONE_END), FILLED_END - GONE_END, SEED);
    vm_assert_bound(dst, "ram0", RAM);

    gmem_file_close(from);
    gmem_file_close(to);
    virtio_free(driver);
    vm_quit(src);
    vm_quit(dst);
    rmdir(tmp);
}

/* virtio-mem */

#define VMEM        (256 * MiB)

static VM *start_vmem(const VMKind *c, uint64_t size, const char *extra)
{
    return vm_start("-machine %s,memory-backend=ram0 -smp %d " VM_BACKEND
                    " -m " VM_RAM ",maxmem=8G,slots=2 -object memory-backend-"
                    "guest-memfd,id=vmem,size=%" PRIu64 VIRTIO_MEM_DEVICE "%s",
                    c->machine, c->cpus, size, extra);
}

static void test_virtio_mem(const void *data)
{
    const VMKind *c = data;
    VM *vm = start_vmem(c, VMEM, "");
    GmemFile *file = gmem_file_open(vm, VMEM);
    const uint64_t half = VMEM / 2;
    VirtioDriver *driver;
    uint64_t base;
    int64_t before;

    vm_wait_ready(vm);
    driver = virtio_mem_start(vm);
    base = virtio_mem_start_address(driver);
    vm_assert_bound(vm, "vmem", VMEM);
    g_assert_cmpint(virtio_mem_plugged(driver), ==, 0);

    virtio_mem_request(vm, VMEM);
    g_assert_cmpint(virtio_mem_requested(driver), ==, VMEM);
    virtio_mem_plug(driver, base, VMEM);
    g_assert_cmpint(virtio_mem_plugged(driver), ==, VMEM);
    vm_check_zero(vm, base, VMEM);
    vm_fill_range(vm, base, VMEM, SEED);
    vm_check_range(vm, base, VMEM, SEED);

    /* The upper half goes, and comes back empty */
    before = unevictable();
    vm_start_count(vm, c->cpus, VM_AT(COUNT), COUNT_LEN);
    virtio_mem_request(vm, half);
    virtio_mem_unplug(driver, base + half, half);
    g_assert_cmpint(virtio_mem_plugged(driver), ==, half);
    wait_unevictable(before, -(int64_t)half);
    vm_stop_count(vm);
    g_assert_cmpint(gmem_file_resident(file, half, half), ==, 0);
    g_assert_cmpint(gmem_file_resident(file, 0, half), ==, half);
    vm_check_range(vm, base, half, SEED);
    virtio_mem_request(vm, VMEM);
    virtio_mem_plug(driver, base + half, half);
    vm_check_zero(vm, base + half, half);
    gmem_file_assert_zero(file, half, half);
    vm_fill_range(vm, base + half, half, SEED);
    vm_check_range(vm, base, VMEM, SEED);

    virtio_mem_request(vm, 0);
    virtio_mem_unplug_all(driver);
    g_assert_cmpint(gmem_file_resident(file, 0, VMEM), ==, 0);
    g_assert_cmpint(virtio_mem_plugged(driver), ==, 0);
    vm_assert_bound(vm, "vmem", VMEM);

    gmem_file_close(file);
    virtio_free(driver);
    vm_quit(vm);
}

/* Memslots of 1 GiB come and go with the blocks: many bindings of one file */
static void test_virtio_mem_memslots(const void *data)
{
    const int slots = 4;
    const uint64_t len = 32 * MiB;
    VM *vm = start_vmem(data, slots * GiB, ",dynamic-memslots=on");
    VirtioDriver *driver;
    uint64_t base;

    vm_wait_ready(vm);
    driver = virtio_mem_start(vm);
    base = virtio_mem_start_address(driver);
    g_assert_cmpint(vm_info_number(vm, "vmem", "bound"), ==, 0);

    virtio_mem_request(vm, slots * GiB);
    for (int i = 1; i <= slots; i++) {
        virtio_mem_plug(driver, base + (i - 1) * GiB, len);
        vm_fill_range(vm, base + (i - 1) * GiB, len, SEED);
        g_assert_cmpint(vm_info_number(vm, "vmem", "bound"), ==, i * GiB);
        vm_assert_slots_bound(vm, "vmem");
    }
    for (int i = slots - 1; i > 0; i--) {
        virtio_mem_unplug(driver, base + i * GiB, len);
        g_assert_cmpint(vm_info_number(vm, "vmem", "bound"), ==, i * GiB);
        vm_assert_slots_bound(vm, "vmem");
        vm_check_range(vm, base + (i - 1) * GiB, len, SEED);
    }
    virtio_free(driver);
    vm_quit(vm);
}

/*
 * The destination has what is plugged, and no page of what is not; nor has
 * the source, which would get pages by merely reading unplugged blocks.
 */
static void test_virtio_mem_migrate(const void *data)
{
    const VMKind *c = data;
    g_autofree char *tmp = g_dir_make_tmp("guest-memfd-XXXXXX", NULL);
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);
    VM *src = start_vmem(c, VMEM, "");
    VM *dst = start_vmem(c, VMEM, " -incoming defer");
    const uint64_t plugged = 64 * MiB;
    GmemFile *files[2];
    VirtioDriver *driver;
    uint64_t base;

    vm_wait_ready(src);
    driver = virtio_mem_start(src);
    base = virtio_mem_start_address(driver);
    virtio_mem_request(src, 2 * plugged);
    virtio_mem_plug(driver, base, 2 * plugged);
    vm_fill_range(src, base, 2 * plugged, SEED);
    virtio_mem_request(src, plugged);
    virtio_mem_unplug(driver, base, plugged);

    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    wait_for_migration_complete(src->qts);
    wait_for_migration_complete(dst->qts);
    qtest_qmp_eventwait(dst->qts, "RESUME");

    files[0] = gmem_file_open(src, VMEM);
    files[1] = gmem_file_open(dst, VMEM);
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(gmem_file_resident(files[i], 0, plugged), ==, 0);
        g_assert_cmpint(gmem_file_resident(files[i], 2 * plugged,
                                           VMEM - 2 * plugged), ==, 0);
        gmem_file_close(files[i]);
    }
    vm_check_range(dst, base + plugged, plugged, SEED);
    vm_assert_bound(dst, "vmem", VMEM);

    virtio_free(driver);
    vm_quit(src);
    vm_quit(dst);
    rmdir(tmp);
}

/* A plugged block is allocated at once, and mapped only where that helps */
static void test_virtio_mem_prealloc(const void *data)
{
    VM *vm = start_vmem(data, VMEM, ",prealloc=on");
    GmemFile *file = gmem_file_open(vm, VMEM);
    VirtioDriver *driver;
    uint64_t base;
    int64_t before;

    vm_wait_ready(vm);
    driver = virtio_mem_start(vm);
    base = virtio_mem_start_address(driver);
    before = unevictable();
    virtio_mem_request(vm, VMEM);
    virtio_mem_plug(driver, base, VMEM);
    wait_unevictable(before, VMEM);
    if (vm_prealloc_maps()) {
        g_assert_cmpint(gmem_file_resident(file, 0, VMEM), ==, VMEM);
    } else {
        g_assert_cmpint(gmem_file_resident(file, 0, VMEM), <, MiB);
    }
    vm_fill_range(vm, base, 64 * MiB, SEED);
    vm_check_range(vm, base, 64 * MiB, SEED);

    before = unevictable();
    virtio_mem_unplug_all(driver);
    wait_unevictable(before, -(int64_t)VMEM);

    gmem_file_close(file);
    virtio_free(driver);
    vm_quit(vm);
}

/* The memory of a DIMM goes with its backend, not later */
static void test_unplug(const void *data)
{
    const VMKind *c = data;
    const uint64_t dimm = 4 * GiB;
    VM *vm = vm_start("-machine %s,memory-backend=ram0 -smp %d " VM_BACKEND
                      " -m " VM_RAM ",slots=2,maxmem=4G -object "
                      "memory-backend-guest-memfd,id=mem0,size=1G -device "
                      "pc-dimm,id=dimm0,memdev=mem0,addr=0x100000000",
                      c->machine, c->cpus);
    const int maps = vm_count_maps(vm);
    int64_t before;

    vm_wait_ready(vm);
    vm_fill_range(vm, dimm, GONE_LEN, SEED);
    vm_check_range(vm, dimm, GONE_LEN, SEED);
    before = unevictable();
    vm_start_count(vm, c->cpus, VM_AT(COUNT), COUNT_LEN);
    vm_remove_dimm(vm, 0);
    vm_wait_gmem_fds(vm, 1);
    g_assert_cmpint(vm_count_maps(vm), ==, maps - 1);
    wait_unevictable(before, -(int64_t)GONE_LEN);
    vm_stop_count(vm);
    vm_quit(vm);
}

/* ... and that of the VM with QEMU */
static void test_exit(void)
{
    int64_t before = unevictable();
    VM *vm = vm_start("-machine " VM_TYPE ",memory-backend=big -m 1G -object "
                      "memory-backend-guest-memfd,id=big,size=1G,prealloc=on");

    vm_wait_ready(vm);
    wait_unevictable(before, GiB);
    vm_quit(vm);
    wait_unevictable(before + GiB, -(int64_t)GiB);
}

int main(int argc, char **argv)
{
    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    vm_add_tests("discard/balloon", test_balloon);
    vm_add_tests("discard/balloon-page", test_balloon_page);
    vm_add_tests("discard/free-page-hinting", test_hint);
    vm_add_tests("discard/free-page-reporting", test_report);
    vm_add_tests("discard/virtio-mem", test_virtio_mem);
    vm_add_tests("discard/virtio-mem-memslots", test_virtio_mem_memslots);
    vm_add_tests("discard/virtio-mem-migrate", test_virtio_mem_migrate);
    vm_add_tests("discard/virtio-mem-prealloc", test_virtio_mem_prealloc);
    vm_add_tests("discard/unplug", test_unplug);
    qtest_add_func("/guest-memfd/discard/exit", test_exit);
    return g_test_run();
}
