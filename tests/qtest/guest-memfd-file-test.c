/*
 * What the kernel says of a guest_memfd, and what QEMU makes of it
 *
 * Each test in selftest/ is named after a case of Linux's own
 * tools/testing/selftests/kvm/guest_memfd_test.c.  It shows that the file
 * which QEMU has open behaves like that, or what QEMU does where that counts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/wait.h>
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "guest-memfd/file.h"
#include "guest-memfd/vm.h"

#define SEED 21

typedef struct Fixture {
    VM *vm;
    GmemFile *file;
    size_t page;
} Fixture;

static Fixture start(const char *extra)
{
    Fixture f = { .page = qemu_real_host_page_size() };

    f.vm = vm_start(VM_MACHINE(VM_TYPE) " " VM_BACKEND "%s", extra);
    f.file = gmem_file_open(f.vm, VM_RAM_SIZE);
    vm_wait_ready(f.vm);
    return f;
}

static void stop(Fixture *f)
{
    gmem_file_close(f->file);
    vm_quit(f->vm);
}

/* KVM's flags decide whether QEMU can use the file at all */
static void test_flags(void)
{
    static const char *const bad[] = { "flags=0", "flags=1", "flags=2" };
    Fixture f;

    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autofree char *err = NULL;

        vm_faults_begin(bad[i]);
        err = vm_fail(VM_MACHINE(VM_TYPE) " " VM_BACKEND);
        vm_faults_end();
        g_assert_nonnull(strstr(err, "0x3 are needed"));
        g_assert_nonnull(strstr(err, "Linux 6.18"));
    }

    /* A newer kernel has more of them, which QEMU must not ask for */
    vm_faults_begin("flags=255");
    f = start("");
    vm_faults_end();
    vm_assert_bound(f.vm, "ram0", VM_RAM_SIZE);
    stop(&f);
}

static void test_create_multiple(void)
{
    Fixture f = start(" -object memory-backend-guest-memfd,id=b,size=1M"
                      " -object memory-backend-guest-memfd,id=c,size=4K");
    GmemFile *b = gmem_file_open(f.vm, MiB);
    GmemFile *c = gmem_file_open(f.vm, 4 * KiB);
    struct stat st[3];

    g_assert_cmpint(fstat(f.file->fd, &st[0]), ==, 0);
    g_assert_cmpint(fstat(b->fd, &st[1]), ==, 0);
    g_assert_cmpint(fstat(c->fd, &st[2]), ==, 0);
    g_assert_cmpint(st[0].st_ino, !=, st[1].st_ino);
    g_assert_cmpint(st[0].st_ino, !=, st[2].st_ino);
    g_assert_cmpint(st[1].st_ino, !=, st[2].st_ino);

    memset(b->map, 0xaa, MiB);
    gmem_file_assert_zero(c, 0, 4 * KiB);
    gmem_file_assert_zero(f.file, 64 * MiB, MiB);
    gmem_file_close(b);
    gmem_file_close(c);
    stop(&f);
}

static void test_create_invalid_sizes(void)
{
    Fixture f = start("");

    for (uint64_t size = 0; size < f.page; size++) {
        QDict *error = qtest_qmp_assert_failure_ref(f.vm->qts,
            "{'execute': 'object-add', 'arguments': {"
            "'qom-type': 'memory-backend-guest-memfd', 'id': 'b',"
            "'size': %" PRIu64 "}}", size);

        g_assert_nonnull(strstr(qdict_get_str(error, "desc"), "'size'"));
        qobject_unref(error);
    }
    g_assert_cmpint(vm_count_gmem_fds(f.vm), ==, 1);
    stop(&f);
}

static void test_file_read_write(void)
{
    Fixture f = start("");
    char buf[64] = "";

    g_assert_cmpint(read(f.file->fd, buf, sizeof(buf)), ==, -1);
    g_assert_cmpint(write(f.file->fd, buf, sizeof(buf)), ==, -1);
    g_assert_cmpint(pread(f.file->fd, buf, sizeof(buf), 0), ==, -1);
    g_assert_cmpint(pwrite(f.file->fd, buf, sizeof(buf), 0), ==, -1);
    stop(&f);
}

static void test_mmap_supported(void)
{
    Fixture f = start("");
    const uint64_t at = 64 * MiB, len = 16 * f.page, hole = at + 5 * f.page;
    const uint64_t end = at + len, after = hole + f.page;

    /* guest to host, host to guest */
    vm_fill_range(f.vm, VM_AT(at), len, SEED);
    qtest_memset(f.vm->qts, VM_AT(end), 0xaa, f.page);
    g_assert_cmphex(ldq_he_p(f.file->map + end), ==, 0xaaaaaaaaaaaaaaaa);
    memset(f.file->map + end, 0xbb, f.page);
    g_assert_cmphex(vm_read64(f.vm, VM_AT(end)), ==, 0xbbbbbbbbbbbbbbbb);

    g_assert_cmpint(fallocate(f.file->fd, FALLOC_FL_PUNCH_HOLE |
                              FALLOC_FL_KEEP_SIZE, hole, f.page), ==, 0);
    gmem_file_assert_zero(f.file, hole, f.page);
    vm_check_zero(f.vm, VM_AT(hole), f.page);
    vm_check_range(f.vm, VM_AT(at), hole - at, SEED);
    vm_check_range(f.vm, VM_AT(after), end - after, SEED);

    vm_fill_range(f.vm, VM_AT(at), len, SEED + 1);
    vm_check_range(f.vm, VM_AT(at), len, SEED + 1);
    stop(&f);
}

static void test_mmap_cow(void)
{
    Fixture f = start("");
    g_autofree char *err = NULL;

    g_assert(mmap(NULL, f.page, PROT_READ, MAP_PRIVATE, f.file->fd, 0) ==
             MAP_FAILED);
    stop(&f);

    err = vm_fail(VM_MACHINE(VM_TYPE) " " VM_BACKEND ",share=off");
    g_assert_nonnull(strstr(err, "copy-on-write"));
}

/* Nothing of QEMU reaches beyond the end of the file */
static void test_fault_overflow(void)
{
    Fixture f = start("");
    const uint64_t end = VM_AT(VM_RAM_SIZE);
    g_autofree char *dump = NULL, *reply = NULL;
    int fd = g_file_open_tmp("guest-memfd-dump-XXXXXX", &dump, NULL);
    pid_t child = fork();
    int status;

    /* The kernel does not forgive it */
    if (child == 0) {
        uint8_t *map = mmap(NULL, 2 * VM_RAM_SIZE, PROT_READ, MAP_SHARED,
                            f.file->fd, 0);

        signal(SIGBUS, SIG_DFL);
        _exit(map == MAP_FAILED ? 1 : 2 + qatomic_read(&map[VM_RAM_SIZE]));
    }
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    g_assert_true(WIFSIGNALED(status));
    g_assert_cmpint(WTERMSIG(status), ==, SIGBUS);

    vm_write64(f.vm, end - 8, 77);
    vm_write64(f.vm, end, 78);
    g_assert_cmphex(vm_read64(f.vm, end), !=, 78);
    g_assert_cmphex(qtest_readq(f.vm->qts, end), !=, 78);
    qtest_memset(f.vm->qts, end - 4096, 0x11, 8192);
    qobject_unref(qtest_qmp(f.vm->qts, "{'execute': 'pmemsave', 'arguments': {"
                            "'val': %" PRIu64 ", 'size': 8192,"
                            "'filename': %s}}", end - 4096, dump));
    reply = qtest_hmp(f.vm->qts, "xp /2gx 0x%" PRIx64, end - 8);
    g_assert_nonnull(strstr(reply, "Cannot access memory"));
    g_assert_cmphex(vm_read64(f.vm, end - 8), ==, 0x1111111111111111);
    close(fd);
    unlink(dump);
    stop(&f);
}

static void test_mmap_not_supported(void)
{
    g_autofree char *err = NULL;

    vm_faults_begin("flags=0");
    err = vm_fail(VM_MACHINE(VM_TYPE) " " VM_BACKEND ",kvm-bind=off");
    vm_faults_end();
    g_assert_nonnull(strstr(err, "cannot map"));
}

static void test_file_size(void)
{
    Fixture f = start("");
    struct stat st;

    g_assert_cmpint(fstat(f.file->fd, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, VM_RAM_SIZE);
    g_assert_cmpint(st.st_blksize, ==, f.page);
    g_assert_cmpint(ftruncate(f.file->fd, VM_RAM_SIZE / 2), ==, -1);
    g_assert_cmpint(ftruncate(f.file->fd, VM_RAM_SIZE * 2), ==, -1);
    g_assert_cmpint(fstat(f.file->fd, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, VM_RAM_SIZE);
    stop(&f);
}

static int punch(Fixture *f, off_t offset, off_t len)
{
    return fallocate(f->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     offset, len);
}

static void test_fallocate(void)
{
    Fixture f = start("");
    const off_t end = VM_RAM_SIZE;
    int fd = f.file->fd;

    vm_fill(f.vm, SEED);
    g_assert_cmpint(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, end), ==, 0);
    g_assert_cmpint(fallocate(fd, FALLOC_FL_KEEP_SIZE, end, f.page), ==, -1);
    g_assert_cmpint(fallocate(fd, 0, 0, f.page), ==, -1);
    g_assert_cmpint(punch(&f, end, f.page), ==, 0);
    g_assert_cmpint(punch(&f, end + f.page, f.page), ==, 0);
    vm_check(f.vm, SEED);

    g_assert_cmpint(punch(&f, 64 * MiB, f.page), ==, 0);
    g_assert_cmpint(fallocate(fd, FALLOC_FL_KEEP_SIZE, 64 * MiB, f.page), ==,
                    0);
    vm_check_zero(f.vm, VM_AT(64 * MiB), f.page);
    stop(&f);
}

static void test_invalid_punch_hole(void)
{
    Fixture f = start("");
    const off_t page = f.page, base = 64 * MiB;
    const off_t bad[][2] = {
        { 0, 1 }, { 0, page - 1 }, { 0, page + 1 }, { 1, 1 }, { 1, page - 1 },
        { 1, page }, { 1, page + 1 }, { page, 1 }, { page, page - 1 },
        { page, page + 1 },
    };

    vm_fill(f.vm, SEED);
    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        g_assert_cmpint(punch(&f, base + bad[i][0], bad[i][1]), ==, -1);
        g_assert_cmpint(errno, ==, EINVAL);
    }
    vm_check(f.vm, SEED);
    stop(&f);
}

/*
 * The self-test unmaps the file while its guest goes on.  QEMU never does, but
 * has no page table entries for what only the guest uses: that is the same to
 * KVM.  Without a binding the guest's pages are the host's.
 */
static void test_guest(void)
{
    const uint64_t at = 32 * MiB, len = 64 * MiB;
    Fixture f = start(""), g;

    vm_fill_range(f.vm, VM_AT(at), len, SEED);
    vm_check_range(f.vm, VM_AT(at), len, SEED);
    g_assert_cmpint(gmem_smaps(f.vm, "Rss:"), <, len / 8);
    g_assert_cmpint(gmem_file_resident(f.file, at, len), ==, len);
    memset(f.file->map + at, 0xaa, f.page);
    g_assert_cmphex(vm_read64(f.vm, VM_AT(at)), ==, 0xaaaaaaaaaaaaaaaa);
    stop(&f);

    g = start(",kvm-bind=off");
    vm_fill_range(g.vm, VM_AT(at), len, SEED);
    vm_check_range(g.vm, VM_AT(at), len, SEED);
    g_assert_cmpint(gmem_smaps(g.vm, "Rss:"), >=, len);
    stop(&g);
}

/* Neither QEMU nor khugepaged makes huge pages of it */
static void test_collapse(void)
{
    Fixture f = start("");

    vm_fill(f.vm, SEED);
    g_assert_cmpint(gmem_smaps(f.vm, "THPeligible:"), ==, 0);
    g_assert_cmpint(gmem_smaps(f.vm, "FilePmdMapped:"), ==, 0);
    stop(&f);
}

/* A program that QEMU starts does not get the file */
static void test_cloexec(void)
{
    Fixture f = start("");
    g_autoptr(GArray) fds = vm_list_fds(f.vm, VM_GMEM_LINK);
    g_autofree char *path = NULL, *text = NULL;
    unsigned flags;

    g_assert_cmpint(fds->len, ==, 1);
    path = g_strdup_printf("/proc/%d/fdinfo/%d", (int)qtest_pid(f.vm->qts),
                           g_array_index(fds, int, 0));
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpint(sscanf(strstr(text, "flags:"), "flags: %o", &flags), ==, 1);
    g_assert_cmphex(flags & O_CLOEXEC, ==, O_CLOEXEC);
    stop(&f);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*func)(void);
    } tests[] = {
        { "guest_memfd_flags", test_flags },
        { "create_guest_memfd_multiple", test_create_multiple },
        { "create_guest_memfd_invalid_sizes", test_create_invalid_sizes },
        { "file_read_write", test_file_read_write },
        { "mmap_supported", test_mmap_supported },
        { "mmap_cow", test_mmap_cow },
        { "mmap_not_supported", test_mmap_not_supported },
        { "fault_overflow", test_fault_overflow },
        { "file_size", test_file_size },
        { "fallocate", test_fallocate },
        { "invalid_punch_hole", test_invalid_punch_hole },
        { "guest_memfd_guest", test_guest },
        { "collapse", test_collapse },
    };

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    for (int i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/guest-memfd/selftest/%s",
                                                tests[i].name);

        qtest_add_func(path, tests[i].func);
    }
    qtest_add_func("/guest-memfd/file/cloexec", test_cloexec);
    return g_test_run();
}
