/*
 * The file behind guest_memfd RAM, as the host sees it from outside QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_FILE_H
#define TESTS_GUEST_MEMFD_FILE_H

#include "vm.h"

typedef struct GmemFile {
    int fd;
    uint64_t size;
    uint8_t *map;               /* all of it, shared */
} GmemFile;

/* QEMU's file of this size, mapped here too; a VM has one of each size */
GmemFile *gmem_file_open(VM *vm, uint64_t size);
void gmem_file_close(GmemFile *file);

/* Bytes of a range that have pages; those only allocated do not count */
uint64_t gmem_file_resident(GmemFile *file, uint64_t offset, uint64_t len);

/* ... reads zero for the host; it has pages then */
void gmem_file_assert_zero(GmemFile *file, uint64_t offset, uint64_t len);

/*
 * The machine's unevictable memory, which all pages of a guest_memfd are part
 * of.  Other programs change it, too, so that only large amounts mean much:
 * wait until it has risen (or, less than 0, fallen) by more than half of it.
 */
int64_t unevictable(void);
void wait_unevictable(int64_t before, int64_t bytes);

/* A number of KiB in QEMU's smaps for mappings of guest_memfds, in bytes */
uint64_t gmem_smaps(VM *vm, const char *field);

#endif
