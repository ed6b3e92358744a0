/*
 * virtiofsd, which reads and writes files from and into guest_memfd RAM
 *
 * Which virtiofsd is up to who runs this: tests/peers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "standard-headers/linux/fuse.h"
#include "../guest-memfd/pattern.h"
#include "guest-memfd/crawl.h"
#include "guest-memfd/peer.h"
#include "guest-memfd/virtio.h"
#include "guest-memfd/vm.h"

/* Guest RAM: what is exchanged with the file */
#define DATA        (16 * MiB)
#define DATA_LEN    (1 * MiB)
#define REQUEST     (64 * KiB)
#define GARBAGE     999

#define FILE_NAME   "data"
#define HEADER_LEN  4096

/* The second queue is the first one for ordinary requests */
enum { HIGH_PRIORITY, REQUESTS, QUEUES };

typedef struct Fs {
    char *dir;
    char *share;                /* in it, shared with the guest */
    Peer *peer;
    VM *vm;
    VirtioDriver *driver;
    uint64_t in, out;           /* each request's headers, in guest RAM */
    uint64_t unique;
    uint64_t node, handle;      /* the file */
} Fs;

/*
 * A request with arguments and, if not 0, data in guest RAM that go to the
 * device, or come from it.
 */
static void request(Fs *fs, uint32_t opcode, uint64_t node,
                    const void *args, size_t args_len,
                    uint64_t data_in, void *result, size_t result_len,
                    uint64_t data_out)
{
    size_t in_len = sizeof(struct fuse_in_header) + args_len;
    size_t out_len = sizeof(struct fuse_out_header) + result_len;
    const struct fuse_in_header in = {
        .len = in_len + (data_in ? REQUEST : 0),
        .opcode = opcode,
        .unique = ++fs->unique,
        .nodeid = node,
    };
    struct fuse_out_header out;
    VirtioBuf bufs[3] = {};
    int n = 0;

    qtest_memwrite(fs->vm->qts, fs->in, &in, sizeof(in));
    qtest_memwrite(fs->vm->qts, fs->in + sizeof(in), args, args_len);
    bufs[n++] = (VirtioBuf) { fs->in, in_len };
    if (data_in) {
        bufs[n++] = (VirtioBuf) { data_in, REQUEST };
    }
    bufs[n++] = (VirtioBuf) { fs->out, out_len, .fill = true };
    if (data_out) {
        bufs[n++] = (VirtioBuf) { data_out, REQUEST, .fill = true };
    }
    virtio_submit(fs->driver, REQUESTS, bufs, n);
    virtio_wait(fs->driver, REQUESTS);

    qtest_memread(fs->vm->qts, fs->out, &out, sizeof(out));
    qtest_memread(fs->vm->qts, fs->out + sizeof(out), result, result_len);
    g_assert_cmpint(out.error, ==, 0);
    g_assert_cmpint(out.unique, ==, in.unique);
    g_assert_cmpint(out.len, ==, out_len + (data_out ? REQUEST : 0));
}

static void open_file(Fs *fs)
{
    const struct fuse_init_in init = {
        .major = FUSE_KERNEL_VERSION,
        .minor = FUSE_KERNEL_MINOR_VERSION,
        .flags = FUSE_BIG_WRITES | FUSE_MAX_PAGES,
    };
    const struct fuse_open_in open = { .flags = O_RDWR };
    struct fuse_init_out init_out;
    struct fuse_entry_out entry;
    struct fuse_open_out open_out;

    request(fs, FUSE_INIT, 0, &init, sizeof(init), 0,
            &init_out, sizeof(init_out), 0);
    g_assert_cmpint(init_out.major, ==, FUSE_KERNEL_VERSION);
    g_assert_cmpint(init_out.max_write, >=, REQUEST);
    request(fs, FUSE_LOOKUP, FUSE_ROOT_ID, FILE_NAME, sizeof(FILE_NAME), 0,
            &entry, sizeof(entry), 0);
    fs->node = entry.nodeid;
    request(fs, FUSE_OPEN, fs->node, &open, sizeof(open), 0,
            &open_out, sizeof(open_out), 0);
    fs->handle = open_out.fh;
}

static void write_file(Fs *fs)
{
    for (uint64_t offset = 0; offset < DATA_LEN; offset += REQUEST) {
        const struct fuse_write_in in = {
            .fh = fs->handle, .offset = offset, .size = REQUEST,
        };
        struct fuse_write_out out;

        request(fs, FUSE_WRITE, fs->node, &in, sizeof(in), DATA + offset,
                &out, sizeof(out), 0);
        g_assert_cmpint(out.size, ==, REQUEST);
    }
}

static void read_file(Fs *fs)
{
    for (uint64_t offset = 0; offset < DATA_LEN; offset += REQUEST) {
        const struct fuse_read_in in = {
            .fh = fs->handle, .offset = offset, .size = REQUEST,
        };

        request(fs, FUSE_READ, fs->node, &in, sizeof(in), 0, NULL, 0,
                DATA + offset);
    }
}

/* From the guest to the file and back */
static void write_and_read(Fs *fs, uint64_t seed)
{
    g_autofree char *path = g_build_filename(fs->share, FILE_NAME, NULL);
    g_autofree char *content = NULL;
    size_t len;

    vm_fill_range(fs->vm, DATA, DATA_LEN, seed);
    write_file(fs);
    g_assert_true(g_file_get_contents(path, &content, &len, NULL));
    g_assert_cmpint(len, ==, DATA_LEN);
    for (size_t i = 0; i < len; i += 8) {
        g_assert_cmphex(ldq_le_p(content + i), ==,
                        guest_memfd_pattern(DATA + i, seed));
    }
    vm_fill_range(fs->vm, DATA, DATA_LEN, GARBAGE);
    read_file(fs);
    vm_check_range(fs->vm, DATA, DATA_LEN, seed);
}

static void start(Fs *fs)
{
    g_autofree char *path = NULL, *socket = NULL;

    *fs = (Fs) { .dir = g_dir_make_tmp("guest-memfd-fs-XXXXXX", NULL) };
    fs->share = g_build_filename(fs->dir, "share", NULL);
    g_assert_cmpint(mkdir(fs->share, 0700), ==, 0);
    path = g_build_filename(fs->share, FILE_NAME, NULL);
    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    socket = g_build_filename(fs->dir, "socket", NULL);
    fs->peer = peer_start(peer_command(), socket, fs->share);
    fs->vm = vm_start("-machine q35,memory-backend=ram0 -m " VM_RAM " "
                      VM_BACKEND ",kvm-bind=on -chardev socket,id=peer,path=%s"
                      " -device vhost-user-fs-pci,chardev=peer,tag=share"
                      IO_DEVICE, socket);
    vm_wait_ready(fs->vm);
    fs->driver = virtio_io_start(fs->vm, QUEUES);
    fs->in = virtio_alloc(fs->driver, HEADER_LEN);
    fs->out = virtio_alloc(fs->driver, HEADER_LEN);
}

static void test_io(void)
{
    Fs fs;

    start(&fs);
    open_file(&fs);
    write_and_read(&fs, 1);
    vm_assert_bound(fs.vm, "ram0", VM_RAM_SIZE);
    crawl_start(fs.vm, DATA + DATA_LEN);
    write_and_read(&fs, 2);
    crawl_cancel(fs.vm);
    write_and_read(&fs, 3);

    virtio_free(fs.driver);
    vm_quit(fs.vm);
    peer_kill(fs.peer);
    peer_remove_dir(fs.share);
    peer_remove_dir(fs.dir);
    g_free(fs.share);
    g_free(fs.dir);
}

int main(int argc, char **argv)
{
    if (!peer_test_init(&argc, &argv)) {
        return 0;
    }
    qtest_add_func("/guest-memfd/virtiofs/io", test_io);
    return g_test_run();
}
