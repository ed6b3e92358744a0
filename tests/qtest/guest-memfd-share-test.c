/*
 * guest_memfd RAM that contrib/guest-memfd/guest-memory-peer has mapped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "../guest-memfd/pattern.h"
#include "guest-memfd/peer.h"
#include "guest-memfd/plug.h"
#include "guest-memfd/virtio.h"

#define DATA        (32 * MiB)
#define DATA_LEN    (64 * KiB)
#define DIMM        (4 * GiB)
#define DIMM_LEN    (128 * MiB)
#define CHUNK       1024

static char *dir;

/* The guest fills a range, which the peer sees; and the other way round */
static void exchange(VM *vm, Peer *peer, uint64_t start)
{
    vm_fill_range(vm, start, DATA_LEN, 1);
    for (uint64_t a = start; a < start + DATA_LEN; a += CHUNK) {
        g_autofree char *seen = peer_ask(peer, "read %" PRIu64 " %d", a,
                                         CHUNK);
        g_autoptr(GString) expected = g_string_new(NULL);
        g_autoptr(GString) other = g_string_new(NULL);
        g_autofree char *answer = NULL;

        for (int i = 0; i < CHUNK; i += 8) {
            g_string_append_printf(expected, "%016" PRIx64,
                                   bswap64(guest_memfd_pattern(a + i, 1)));
            g_string_append_printf(other, "%016" PRIx64,
                                   bswap64(guest_memfd_pattern(a + i, 2)));
        }
        g_assert_cmpstr(seen, ==, expected->str);
        answer = peer_ask(peer, "write %" PRIu64 " %s", a, other->str);
        g_assert_cmpstr(answer, ==, "ok");
    }
    vm_check_range(vm, start, DATA_LEN, 2);
}

static void test_example(const void *data)
{
    g_autofree char *path = g_strdup_printf("%s/socket", dir);
    g_autofree char *before = NULL, *after = NULL, *nothing = NULL;
    g_autoptr(QDict) error = NULL;
    Peer *peer = peer_start(peer_command(), path, "");
    VirtioDriver *driver;
    VM *vm;

    vm = vm_start("-machine %s,memory-backend=ram0 -m " VM_RAM
                  ",slots=1,maxmem=1G " VM_BACKEND ",kvm-bind=on"
                  " -chardev socket,id=peer,path=%s"
                  " -device vhost-user-rng-pci,chardev=peer" IO_DEVICE,
                  (const char *)data, path);
    vm_wait_ready(vm);
    driver = virtio_io_start(vm, 1);
    exchange(vm, peer, DATA);

    /* A DIMM is another file */
    before = peer_ask(peer, "regions");
    vm_plug_dimm(vm, 0, DIMM_LEN, DIMM);
    after = peer_ask(peer, "regions");
    g_assert_cmpstr(before, !=, after);
    g_assert_true(g_str_has_suffix(after, " 0x100000000+0x8000000"));
    exchange(vm, peer, DIMM);
    exchange(vm, peer, DATA);
    nothing = peer_ask(peer, "read %" PRIu64 " 8", DIMM + DIMM_LEN);
    g_assert_true(g_str_has_prefix(nothing, "error no memory"));

    vm_assert_bound(vm, "ram0", VM_RAM_SIZE);
    vm_assert_bound(vm, "mem0", DIMM_LEN);

    /* Nobody would know what the peer writes meanwhile */
    error = qtest_qmp(vm->qts, "{'execute': 'migrate', 'arguments':"
                      "{'uri': 'exec:cat > /dev/null'}}");
    g_assert_nonnull(strstr(qdict_get_str(qdict_get_qdict(error, "error"),
                                          "desc"), "non-migratable device"));

    virtio_free(driver);
    vm_quit(vm);
    peer_kill(peer);
}

int main(int argc, char **argv)
{
    int result;

    if (!peer_test_init(&argc, &argv)) {
        return 0;
    }
    dir = g_dir_make_tmp("guest-memfd-share-XXXXXX", NULL);
    qtest_add_data_func("/guest-memfd/share/example/pc", "pc", test_example);
    qtest_add_data_func("/guest-memfd/share/example/q35", "q35", test_example);
    result = g_test_run();
    peer_remove_dir(dir);
    return result;
}
