/*
 * Numbers that the assembler, the linker script and C have to agree on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_MEMFD_AARCH64_LAYOUT_H
#define GUEST_MEMFD_AARCH64_LAYOUT_H

#define CPUS            16              /* as MAX_CPUS of payload.h */
#define STACK_SIZE      0x1000

/* Entries of page tables; both are readable and writable at EL1. */
#define BLOCK_DEVICE    0x0060000000000401      /* UXN PXN AF, attribute 0 */
#define BLOCK_MEMORY    0x0000000000000705      /* AF, inner shareable, 1 */

/* Attribute 0: device-nGnRE, attribute 1: write-back */
#define MAIR            0xff04
/* 4 KiB granule, 39 bits of virtual and 40 of physical addresses, TTBR0 only */
#define TCR             0x0000000200803519
#define SCTLR_ON        0x30d0198d      /* caches, MMU, stack alignment */

#endif
