/*
 * From reset to C code at EL1, with caches on.
 *
 * QEMU starts the boot processor at the start of the flash, with x0 = 0;
 * the others come from PSCI with a stack in x0 and the MMU off, too.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "layout.h"

    .macro  load_constant reg, value
    movz    \reg, #(\value) & 0xffff
    movk    \reg, #((\value) >> 16) & 0xffff, lsl #16
    movk    \reg, #((\value) >> 32) & 0xffff, lsl #32
    movk    \reg, #((\value) >> 48) & 0xffff, lsl #48
    .endm

    .section .start, "ax"
    .globl  start
start:
    ldr     x1, =own_start
    ldr     x2, =own_data_end
    ldr     x3, =data_image
    ldr     x4, =own_end
1:  cmp     x1, x2
    b.hs    2f
    ldp     x5, x6, [x3], #16
    stp     x5, x6, [x1], #16
    b       1b
2:  cmp     x1, x4
    b.hs    3f
    stp     xzr, xzr, [x1], #16
    b       2b

    /* The cache may hold older contents of what was written around it. */
3:  ldr     x1, =own_start
4:  dc      ivac, x1
    add     x1, x1, #16
    cmp     x1, x4
    b.lo    4b
    dsb     sy
    bl      page_tables_init
    ldr     x0, =stacks + STACK_SIZE

    .globl  cpu_entry
cpu_entry:
    mov     sp, x0
    ldr     x1, =vectors
    msr     vbar_el1, x1
    load_constant x1, MAIR
    msr     mair_el1, x1
    load_constant x1, TCR
    msr     tcr_el1, x1
    ldr     x1, =page_table
    msr     ttbr0_el1, x1
    isb
    tlbi    vmalle1
    dsb     nsh
    load_constant x1, SCTLR_ON
    msr     sctlr_el1, x1
    isb
    ldr     x1, =stacks + STACK_SIZE
    sub     x0, x0, x1
    lsr     x0, x0, #12                 /* STACK_SIZE */
    b       cpu_main

    /* With the MMU off, in the flash: no stack yet */
page_tables_init:
    ldr     x1, =page_table
    load_constant x2, BLOCK_DEVICE
    /* 0 to 1 GiB: a table of 2 MiB blocks, as only the flash is memory */
    ldr     x3, =low_table
    orr     x4, x3, #3
    str     x4, [x1]
    mov     x5, #0
5:  load_constant x6, BLOCK_DEVICE
    load_constant x7, BLOCK_MEMORY
    cmp     x5, #(0x08000000 >> 21)
    csel    x6, x7, x6, lo
    orr     x6, x6, x5, lsl #21
    str     x6, [x3], #8
    add     x5, x5, #1
    cmp     x5, #512
    b.lo    5b
    /* from there on: RAM, if anything */
    mov     x5, #1
6:  load_constant x6, BLOCK_MEMORY
    orr     x6, x6, x5, lsl #30
    str     x6, [x1, x5, lsl #3]
    add     x5, x5, #1
    cmp     x5, #256
    b.lo    6b
    dsb     sy
    ret

    .text
    .balign 2048
vectors:
    .rept   16
    .balign 128
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    b       exception
    .endr

    .section .note.GNU-stack, "", %progbits
