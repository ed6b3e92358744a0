/*
 * Numbers that the assembler, the linker script and C have to agree on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_MEMFD_X86_64_LAYOUT_H
#define GUEST_MEMFD_X86_64_LAYOUT_H

/* A start-up IPI can name a 4 KiB page below 1 MiB; page 0 stays test RAM. */
#define IMAGE_BASE          0x1000

#define CPUS                16          /* as MAX_CPUS of payload.h */
#define STACK_SIZE          0x2000      /* a CPU's: user part, kernel part */
#define KERNEL_STACK_SIZE   0x800

/* PML4, one PDPT, and as many page directories of 1 GiB each as are left. */
#define PAGE_TABLES         (2 + 96)

#define SEG_CODE32          0x08
#define SEG_CODE64          0x10
#define SEG_DATA            0x18
#define SEG_USER_DATA       0x20
#define SEG_USER_CODE64     0x28
#define SEG_TSS             0x30

#define VECTOR_UNDEFINED    6
#define VECTOR_IRQ          0x20
#define VECTORS             0x30
#define ERROR_CODE_VECTORS  0x60227d00  /* 8, 10-14, 17, 21, 29, 30 */

/* System calls. */
#define CALL_PARK           0
#define CALL_WAIT           1
#define CALL_INB            2
#define CALL_OUTB           3
#define CALL_INL            4
#define CALL_OUTL           5

#define PIC_MASTER          0x20
#define PIC_SLAVE           0xa0
#define PIC_EOI             0x20

#endif
