/*
 * What a test and the library that makes the kernel refuse share: a file of
 * two pages, mapped by both
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_FAULT_H
#define TESTS_GUEST_MEMFD_FAULT_H

#include <stdint.h>

#define FAULT_FILE_SIZE 8192

/* Calls that can be made to fail; fault.c says what they are */
#define FAULT_KINDS(X) \
    X(cap) X(flags) X(ext) X(enable) X(create) X(bind) X(log) X(hva) \
    X(delete) X(getlog) X(clearlog) X(resetrings) X(prefault) X(run) X(uffd) \
    X(mmap) X(madvise) X(mincore) X(mbind) X(fallocate) X(punch) X(fstat)

typedef enum FaultKind {
#define FAULT_ENUM(kind) FAULT_##kind,
    FAULT_KINDS(FAULT_ENUM)
    FAULT_KINDS_N
} FaultKind;

static const char *const fault_names[FAULT_KINDS_N] = {
#define FAULT_NAME(kind) #kind,
    FAULT_KINDS(FAULT_NAME)
};

typedef struct FaultFile {
    char words[FAULT_FILE_SIZE / 2];
    /* Since the words were written: calls of each kind, and how many failed */
    uint64_t calls[FAULT_KINDS_N];
    uint64_t failed;
} FaultFile;

#endif
