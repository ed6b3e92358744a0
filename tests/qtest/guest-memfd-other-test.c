/*
 * Migration between guest_memfd RAM and a QEMU that knows nothing of it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "migration/migration-qmp.h"
#include "migration/migration-util.h"
#include "guest-memfd/peer.h"
#include "guest-memfd/vm.h"

/* Both know it, whatever the age of the other one */
#define MACHINE "-machine pc-q35-7.2,memory-backend=ram0 -m " VM_RAM

#define USED        VM_AT(16 * MiB)
#define USED_SIZE   (16 * MiB)
#define HOLE        VM_AT(64 * MiB)
#define HOLE_SIZE   (32 * MiB)

static char *tmp;

static VM *start_ours(const char *extra)
{
    return vm_start(MACHINE " " VM_BACKEND " %s", extra);
}

static VM *start_other(const char *extra)
{
    g_autofree char *ours = g_strdup(getenv("QTEST_QEMU_BINARY"));
    VM *vm;

    g_setenv("QTEST_QEMU_BINARY", peer_command(), true);
    vm = vm_start(MACHINE " -object memory-backend-memfd,id=ram0,size=" VM_RAM
                  " %s", extra);
    g_setenv("QTEST_QEMU_BINARY", ours, true);
    return vm;
}

static void migrate(VM *src, VM *dst, const char *const *caps)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp);

    for (; *caps; caps++) {
        migrate_set_capability(src->qts, *caps, true);
        migrate_set_capability(dst->qts, *caps, true);
    }
    migrate_incoming_qmp(dst->qts, uri, NULL, "{}");
    migrate_qmp(src->qts, dst->qts, uri, NULL, "{}");
    wait_for_migration_complete(src->qts);
    wait_for_migration_complete(dst->qts);
}

/* There and back, into other memory each time: what was used, and what not */
static void there_and_back(const char *const *caps)
{
    VM *ours = start_ours(""), *other, *back;

    vm_wait_ready(ours);
    vm_fill_range(ours, USED, USED_SIZE, 1);
    other = start_other("-incoming defer");
    migrate(ours, other, caps);
    vm_quit(ours);

    vm_check_range(other, USED, USED_SIZE, 1);
    vm_check_zero(other, HOLE, HOLE_SIZE);
    vm_fill_range(other, HOLE, HOLE_SIZE / 2, 2);
    back = start_ours("-incoming defer");
    migrate(other, back, caps);
    vm_quit(other);

    vm_wait_settled(back, "ram0");
    vm_assert_bound(back, "ram0", VM_RAM_SIZE);
    g_assert_cmpuint(vm_info_number(back, "ram0", "allocated"), <,
                     USED_SIZE + HOLE_SIZE / 2 + 2 * MiB);
    vm_check_range(back, USED, USED_SIZE, 1);
    vm_check_range(back, HOLE, HOLE_SIZE / 2, 2);
    vm_check_zero(back, HOLE + HOLE_SIZE / 2, HOLE_SIZE / 2);
    vm_quit(back);
}

static void test_plain(void)
{
    static const char *const caps[] = { NULL };

    there_and_back(caps);
}

static void test_multifd(void)
{
    static const char *const caps[] = { "multifd", NULL };

    there_and_back(caps);
}

int main(int argc, char **argv)
{
    g_autofree char *socket = NULL;
    int result;

    if (!peer_test_init(&argc, &argv)) {
        return 0;
    }
    tmp = g_dir_make_tmp("guest-memfd-other-XXXXXX", NULL);
    socket = g_strdup_printf("%s/migration", tmp);
    qtest_add_func("/guest-memfd/other/plain", test_plain);
    qtest_add_func("/guest-memfd/other/multifd", test_multifd);
    result = g_test_run();
    unlink(socket);
    rmdir(tmp);
    return result;
}
