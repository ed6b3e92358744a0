/*
 * Disks that are read into and written from guest_memfd RAM
 *
 * Either QEMU reads and writes the image, or another process does, to which
 * QEMU has given the file behind the RAM (vhost-user).
 *
 * The data are the pattern of tests/guest-memfd: the guest writes it and checks
 * it, and the test compares the image.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "standard-headers/linux/virtio_blk.h"
#include "../guest-memfd/pattern.h"
#include "guest-memfd/crawl.h"
#include "guest-memfd/peer.h"
#include "guest-memfd/plug.h"
#include "guest-memfd/virtio.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"

/* Guest RAM: what is exchanged with the disk, and what the guest counts in */
#define DATA        (16 * MiB)
#define DATA_LEN    (2 * MiB)
#define COUNT       (32 * MiB)
#define COUNT_LEN   (16 * MiB)
#define REQUEST     (64 * KiB)

#define SECTOR      512
#define GARBAGE     999

static char *dir;

typedef struct Case {
    const char *name;
    const char *machine;
    const char *qemu;           /* its options; %s is the image or the socket */
    const char *peer;           /* who serves the image there, or NULL */
} Case;

typedef struct Disk {
    const Case *c;
    char *image;
    VM *vm;
    VirtioDriver *driver;
    uint64_t header;            /* of requests, in guest RAM; then the status */
    Peer *peer;
    Peer *old_peer;             /* serves the VM that was migrated */
    int sockets;
} Disk;

static char *socket_path(int n)
{
    return g_strdup_printf("%s/socket%d", dir, n);
}

static Peer *start_peer(Disk *disk, int n)
{
    g_autofree char *path = socket_path(n);

    return peer_start(disk->c->peer, path, disk->image);
}

static VM *start_vm(Disk *disk, const char *extra)
{
    g_autofree char *path = disk->c->peer ? socket_path(disk->sockets)
                                          : g_strdup(disk->image);
    g_auto(GStrv) options = g_strsplit(disk->c->qemu, "%s", 2);

    if (disk->c->peer) {
        disk->peer = start_peer(disk, disk->sockets++);
    }
    return vm_start("-machine %s,memory-backend=ram0 -m " VM_RAM " " VM_BACKEND
                    ",kvm-bind=on %s%s%s" IO_DEVICE " %s", disk->c->machine,
                    options[0], path, options[1], extra);
}

static void start_driver(Disk *disk)
{
    disk->driver = virtio_io_start(disk->vm, 1);
    disk->header = virtio_alloc(disk->driver,
                                sizeof(struct virtio_blk_outhdr) + 1);
}

static void start_with(Disk *disk, const Case *c, const char *extra)
{
    int fd;

    *disk = (Disk) { .c = c };
    disk->image = g_build_filename(dir, "image", NULL);
    fd = creat(disk->image, 0600);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, DATA_LEN), ==, 0);
    close(fd);

    disk->vm = start_vm(disk, extra);
    vm_wait_ready(disk->vm);
    start_driver(disk);
}

static void start(Disk *disk, const Case *c)
{
    start_with(disk, c, "");
}

static void quit(Disk *disk)
{
    virtio_free(disk->driver);
    vm_quit(disk->vm);
    if (disk->peer) {
        peer_kill(disk->peer);
    }
    g_free(disk->image);
}

/* Start a request for REQUEST bytes */
static void submit(Disk *disk, uint32_t type, uint64_t offset, uint64_t addr)
{
    struct virtio_blk_outhdr header = {
        .type = cpu_to_le32(type),
        .sector = cpu_to_le64(offset / SECTOR),
    };
    const uint64_t status = disk->header + sizeof(header);
    const VirtioBuf request[] = {
        { disk->header, sizeof(header) },
        { addr, REQUEST, .fill = type == VIRTIO_BLK_T_IN },
        { status, 1, .fill = true },
    };

    qtest_memwrite(disk->vm->qts, disk->header, &header, sizeof(header));
    qtest_writeb(disk->vm->qts, status, 0xff);
    virtio_submit(disk->driver, 0, request, ARRAY_SIZE(request));
}

static void finish(Disk *disk)
{
    virtio_wait(disk->driver, 0);
    g_assert_cmpint(qtest_readb(disk->vm->qts, disk->header +
                                sizeof(struct virtio_blk_outhdr)), ==,
                    VIRTIO_BLK_S_OK);
}

/* All of DATA to the disk, or from there */
static void transfer(Disk *disk, uint32_t type)
{
    for (uint64_t offset = 0; offset < DATA_LEN; offset += REQUEST) {
        submit(disk, type, offset, DATA + offset);
        finish(disk);
    }
}

static void check_image(Disk *disk, uint64_t seed)
{
    g_autofree char *content = NULL;
    size_t len;

    g_assert_true(g_file_get_contents(disk->image, &content, &len, NULL));
    g_assert_cmpint(len, ==, DATA_LEN);
    for (size_t i = 0; i < len; i += 8) {
        g_assert_cmphex(ldq_le_p(content + i), ==,
                        guest_memfd_pattern(DATA + i, seed));
    }
}

/* From the guest to the image and back */
static void write_and_read(Disk *disk, uint64_t seed)
{
    vm_fill_range(disk->vm, DATA, DATA_LEN, seed);
    transfer(disk, VIRTIO_BLK_T_OUT);
    check_image(disk, seed);
    vm_fill_range(disk->vm, DATA, DATA_LEN, GARBAGE);
    transfer(disk, VIRTIO_BLK_T_IN);
    vm_check_range(disk->vm, DATA, DATA_LEN, seed);
}

static void test_io(const void *data)
{
    Disk disk;
    uint64_t seed = 1;

    start(&disk, data);
    write_and_read(&disk, seed++);
    for (int i = 0; i < 2; i++) {
        crawl_start(disk.vm, COUNT);
        vm_start_count(disk.vm, 1, COUNT, COUNT_LEN);
        transfer(&disk, VIRTIO_BLK_T_OUT);
        check_image(&disk, seed - 1);
        transfer(&disk, VIRTIO_BLK_T_IN);
        crawl_cancel(disk.vm);
        vm_stop_count(disk.vm);
        vm_check_range(disk.vm, DATA, DATA_LEN, seed - 1);
        write_and_read(&disk, seed++);
    }
    quit(&disk);
}

/*
 * What is read from the disk arrives, although its pages were sent before: so
 * whoever wrote it to memory has logged that
 */
static void test_migrate(const void *data)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", dir);
    Disk disk;
    VM *from, *to;

    start(&disk, data);
    from = disk.vm;
    vm_fill_range(disk.vm, DATA, DATA_LEN, 1);
    transfer(&disk, VIRTIO_BLK_T_OUT);
    vm_fill_range(disk.vm, DATA, DATA_LEN, GARBAGE);

    disk.old_peer = disk.peer;
    to = start_vm(&disk, "-incoming defer");
    migrate_incoming_qmp(to->qts, uri, NULL, "{}");
    /* Pages of zeroes would be sent in no time */
    qtest_memset(from->qts, COUNT, 1, VM_RAM_SIZE - COUNT);
    vm_start_count(from, 1, COUNT, COUNT_LEN);
    migrate_set_parameter_int(from->qts, "max-bandwidth", 10 * MiB);
    migrate_qmp(from->qts, to->qts, uri, NULL, "{}");

    /* RAM is sent from its beginning: stop there when the data have gone */
    while (read_ram_property_int(from->qts, "dirty-sync-count") < 1 ||
           read_ram_property_int(from->qts, "remaining") >
           VM_RAM_SIZE - COUNT) {
        g_usleep(10 * 1000);
    }
    migrate_set_parameter_int(from->qts, "max-bandwidth", CRAWL_BANDWIDTH);
    transfer(&disk, VIRTIO_BLK_T_IN);
    g_assert_cmpint(read_ram_property_int(from->qts, "dirty-sync-count"), ==,
                    1);
    vm_assert_unbound(from, "ram0", "dirty-log");
    migrate_set_parameter_int(from->qts, "downtime-limit", 60 * 1000);
    migrate_set_parameter_int(from->qts, "max-bandwidth", 0);
    wait_for_migration_complete(from->qts);
    wait_for_migration_complete(to->qts);
    qtest_qmp_eventwait(to->qts, "RESUME");

    to->count = from->count;
    vm_quit(from);
    if (disk.old_peer) {
        peer_kill(disk.old_peer);
    }
    disk.vm = to;
    virtio_io_move(disk.driver, to);
    vm_stop_count(to);
    vm_check_range(disk.vm, DATA, DATA_LEN, 1);
    crawl_wait_bound(to);
    write_and_read(&disk, 2);
    quit(&disk);
}

/* The process dies, and another one gets the memory and the queue */
static void restart_peer(Disk *disk, uint64_t seed)
{
    vm_fill_range(disk->vm, DATA, DATA_LEN, seed);
    transfer(disk, VIRTIO_BLK_T_OUT);
    vm_fill_range(disk->vm, DATA, DATA_LEN, GARBAGE);
    peer_kill(disk->peer);
    submit(disk, VIRTIO_BLK_T_IN, 0, DATA);
    disk->peer = start_peer(disk, disk->sockets - 1);
    finish(disk);
    transfer(disk, VIRTIO_BLK_T_IN);
    vm_check_range(disk->vm, DATA, DATA_LEN, seed);
}

static void test_reconnect(const void *data)
{
    Disk disk;

    start(&disk, data);
    for (int i = 0; i < 2; i++) {
        restart_peer(&disk, i);
        vm_assert_bound(disk.vm, "ram0", VM_RAM_SIZE);
    }
    crawl_start(disk.vm, COUNT);
    restart_peer(&disk, 3);
    crawl_cancel(disk.vm);
    restart_peer(&disk, 4);
    quit(&disk);
}

/* Memory that the peer has, and that goes while the device is stopped */
static void test_unplug(const void *data)
{
    Disk disk;

    start_with(&disk, data, "-m slots=2,maxmem=1G"
               " -object memory-backend-guest-memfd,id=mem0,size=128M"
               " -object memory-backend-guest-memfd,id=mem1,size=128M"
               " -device pc-dimm,id=dimm0,memdev=mem0,slot=0"
               " -device pc-dimm,id=dimm1,memdev=mem1,slot=1");
    for (int i = 0; i < 2; i++) {
        transfer(&disk, VIRTIO_BLK_T_IN);
        virtio_free(disk.driver);
        vm_reset(disk.vm);
        vm_remove_dimm(disk.vm, i);
        vm_wait_gmem_fds(disk.vm, 2 - i);
        start_driver(&disk);
    }
    transfer(&disk, VIRTIO_BLK_T_IN);
    quit(&disk);
}

#define BLOCKDEV(aio) \
    "-blockdev file,node-name=disk,filename=%s,cache.direct=on,aio=" aio
#define VHOST_USER_BLK \
    "-chardev socket,id=peer,path=%s,reconnect-ms=100" \
    " -device vhost-user-blk-pci,num-queues=1,chardev=peer"

static const Case cases[] = {
    { "aio-threads", "pc", BLOCKDEV("threads")
      " -device virtio-blk-pci,drive=disk" },
    { "aio-native", "q35", BLOCKDEV("native")
      " -device virtio-blk-pci,drive=disk" },
    { "aio-io-uring", "pc", BLOCKDEV("io_uring")
      " -device virtio-blk-pci,drive=disk" },
    { "iothread", "q35", BLOCKDEV("native") " -object iothread,id=thread0"
      " -device virtio-blk-pci,drive=disk,iothread=thread0" },
    { "storage-daemon", "q35", VHOST_USER_BLK,
      "storage-daemon/qemu-storage-daemon --blockdev file,node-name=disk,"
      "filename=@share,cache.direct=on,aio=native,locking=off"
      " --export vhost-user-blk,id=disk,node-name=disk,writable=on,"
      "addr.type=unix,addr.path=@socket" },
    { "vhost-user-blk", "pc", VHOST_USER_BLK,
      "contrib/vhost-user-blk/vhost-user-blk -s @socket -b @share" },
};

static void add(const char *name, const Case *c, GTestDataFunc test)
{
    g_autofree char *path = g_strdup_printf("/guest-memfd/disk/%s/%s", c->name,
                                            name);

    qtest_add_data_func(path, c, test);
}

int main(int argc, char **argv)
{
    int result;

    if (!vm_test_init(&argc, &argv)) {
        return 0;
    }
    /* Here, for a tmpfs may not know O_DIRECT */
    dir = g_strdup("guest-memfd-disk-XXXXXX");
    g_assert_nonnull(g_mkdtemp(dir));
    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        add("io", &cases[i], test_io);
        add("migrate", &cases[i], test_migrate);
        if (cases[i].peer) {
            add("reconnect", &cases[i], test_reconnect);
            add("unplug", &cases[i], test_unplug);
        }
    }
    result = g_test_run();
    peer_remove_dir(dir);
    return result;
}
