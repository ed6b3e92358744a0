/*
 * Internal snapshots, and the disk that they are in
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "snapshot.h"

char *snapshot_disk(const char *dir)
{
    g_autofree char *create = g_strdup_printf("%s create -q -f qcow2"
                                              " %s/disk.qcow2 1G",
                                              getenv("QTEST_QEMU_IMG"), dir);
    int status;

    g_assert_true(g_spawn_command_line_sync(create, NULL, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
    return g_strdup_printf("-drive if=none,id=d,file=%s/disk.qcow2", dir);
}

void snapshot_disk_remove(const char *dir)
{
    g_autofree char *path = g_strdup_printf("%s/disk.qcow2", dir);

    unlink(path);
}

static void hmp(VM *vm, const char *command, const char *name)
{
    g_autofree char *error = qtest_hmp(vm->qts, "%s %s", command, name);

    g_assert_cmpstr(error, ==, "");
}

void snapshot_save(VM *vm, const char *name)
{
    hmp(vm, "savevm", name);
}

void snapshot_load(VM *vm, const char *name)
{
    hmp(vm, "loadvm", name);
}
