/*
 * Internal snapshots, and the disk that they are in
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QTEST_GUEST_MEMFD_SNAPSHOT_H
#define QTEST_GUEST_MEMFD_SNAPSHOT_H

#include "vm.h"

/* Make such a disk in a directory; the options that give it to a QEMU */
char *snapshot_disk(const char *dir);
void snapshot_disk_remove(const char *dir);

/* savevm or loadvm, which has to succeed */
void snapshot_save(VM *vm, const char *name);
void snapshot_load(VM *vm, const char *name);

#endif
