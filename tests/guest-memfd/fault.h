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
typedef enum FaultKind {
    FAULT_vm,
    FAULT_vcpu,
    FAULT_initvcpu,
    FAULT_cap,
    FAULT_flags,
    FAULT_ext,
    FAULT_enable,
    FAULT_create,
    FAULT_bind,
    FAULT_log,
    FAULT_hva,
    FAULT_delete,
    FAULT_getlog,
    FAULT_clearlog,
    FAULT_resetrings,
    FAULT_prefault,
    FAULT_run,
    FAULT_uffd,
    FAULT_mmap,
    FAULT_madvise,
    FAULT_mincore,
    FAULT_mbind,
    FAULT_fallocate,
    FAULT_punch,
    FAULT_fstat,
    FAULT_KINDS_N
} FaultKind;

static const char *const fault_names[FAULT_KINDS_N] = {
    [FAULT_vm] = "vm",
    [FAULT_vcpu] = "vcpu",
    [FAULT_initvcpu] = "initvcpu",
    [FAULT_cap] = "cap",
    [FAULT_flags] = "flags",
    [FAULT_ext] = "ext",
    [FAULT_enable] = "enable",
    [FAULT_create] = "create",
    [FAULT_bind] = "bind",
    [FAULT_log] = "log",
    [FAULT_hva] = "hva",
    [FAULT_delete] = "delete",
    [FAULT_getlog] = "getlog",
    [FAULT_clearlog] = "clearlog",
    [FAULT_resetrings] = "resetrings",
    [FAULT_prefault] = "prefault",
    [FAULT_run] = "run",
    [FAULT_uffd] = "uffd",
    [FAULT_mmap] = "mmap",
    [FAULT_madvise] = "madvise",
    [FAULT_mincore] = "mincore",
    [FAULT_mbind] = "mbind",
    [FAULT_fallocate] = "fallocate",
    [FAULT_punch] = "punch",
    [FAULT_fstat] = "fstat",
};

typedef struct FaultFile {
    char words[FAULT_FILE_SIZE / 2];
    /* Since the words were written: calls of each kind, and how many failed */
    uint64_t calls[FAULT_KINDS_N];
    uint64_t failed;
} FaultFile;

#endif
