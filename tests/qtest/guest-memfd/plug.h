/*
 * DIMMs that come and go while the VM runs
 *
 * DIMM "dimm@i" is in memory slot @i, and its memory is the backend "mem@i".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_PLUG_H
#define TESTS_GUEST_MEMFD_PLUG_H

#include "vm.h"

/* Make a backend of this QOM type, or delete it */
void vm_add_backend(VM *vm, const char *type, int i, uint64_t size);
void vm_del_backend(VM *vm, int i);

/* Plug the DIMM of a backend that exists; it must work */
void vm_add_dimm(VM *vm, int i, uint64_t addr);
/* ... may be refused; what QEMU answers */
QDict *vm_try_dimm(VM *vm, int i, uint64_t addr);

/*
 * Ask the guest for it, and do what its ACPI code does then.  From the host, so
 * that the payload can go on with its work.
 */
void vm_del_dimm(VM *vm, int i);

/* A DIMM whose backend is a guest_memfd comes */
void vm_plug_dimm(VM *vm, int i, uint64_t size, uint64_t addr);
/* ... and goes, as may one on another backend */
void vm_remove_dimm(VM *vm, int i);

#endif
