/*
 * From the reset vector to C code at CPL3.
 *
 * The boot processor copies the image to low RAM and enters it exactly as an
 * application processor enters it after a start-up IPI: in real mode, at the
 * image's first byte, with CS:IP = 0x100:0.  From there one path serves both.
 *
 * All C code but cpu_init() and exception() runs at CPL3: some KVM hosts
 * interpret the guest's kernel mode, and none interprets its user mode.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "layout.h"

#define CR0_ON      0x80010031          /* PG WP NE ET PE */
#define CR4_PAE     0x20
#define MSR_EFER    0xc0000080
#define EFER_LME    0x100
#define USER_PAGE   0x07                /* present, writable, user */
#define USER_LARGE  0x87
#define USER_FLAGS  0x2                 /* interrupts off */

    /* Top of the 64 KiB image, where a processor starts after reset. */
    .section .reset, "ax"
    .code16
copy_image:
    mov     $(IMAGE_BASE >> 4), %ax
    mov     %ax, %es
    xor     %si, %si
    xor     %di, %di
    mov     $image_dwords, %cx
    rep movsl %cs:(%si), %es:(%di)
    ljmp    $(IMAGE_BASE >> 4), $0
    .org    0x20
    jmp     copy_image
    .org    0x30

    .section .start, "ax"
    .code16
    .globl  image
image:
    cli
    cld
    lgdtl   %cs:(gdt_pointer - image)
    mov     $1, %eax
    mov     %eax, %cr0
    ljmpl   $SEG_CODE32, $protected_mode

    .code32
protected_mode:
    mov     $SEG_DATA, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    cmpl    $0, cpus_started
    jne     1f

    /* First 2 MiB only; C maps the rest, at full speed, as it needs it. */
    mov     $zeroed, %edi
    mov     $zeroed_dwords, %ecx
    xor     %eax, %eax
    rep stosl
    movl    $(page_tables + 0x1000 + USER_PAGE), page_tables
    movl    $(page_tables + 0x2000 + USER_PAGE), page_tables + 0x1000
    movl    $USER_LARGE, page_tables + 0x2000
1:
    mov     $CR4_PAE, %eax
    mov     %eax, %cr4
    mov     $page_tables, %eax
    mov     %eax, %cr3
    mov     $MSR_EFER, %ecx
    rdmsr
    or      $EFER_LME, %eax
    wrmsr
    mov     $CR0_ON, %eax
    mov     %eax, %cr0
    ljmpl   $SEG_CODE64, $long_mode

    .code64
long_mode:
    mov     $1, %ebx
    lock xadd %ebx, cpus_started
    cmp     cpus_wanted, %ebx
    jae     park
    lea     1(%rbx), %eax
    imul    $STACK_SIZE, %eax
    lea     stacks(%rax), %rsp
    mov     %ebx, %edi
    call    cpu_init

    mov     $(SEG_USER_DATA | 3), %eax
    mov     %eax, %ds
    mov     %eax, %es
    lea     -KERNEL_STACK_SIZE(%rsp), %rcx
    sub     $8, %rcx                    /* as after a call */
    mov     %ebx, %edi
    pushq   %rax
    pushq   %rcx
    pushq   $USER_FLAGS
    pushq   $(SEG_USER_CODE64 | 3)
    pushq   $cpu_main
    iretq

/* One stub for each vector, 16 bytes apart. */
    .balign 16
    .globl  vectors
vectors:
    .set    vector, 0
    .rept   VECTORS
    .balign 16
    .if     vector == VECTOR_UNDEFINED
    jmp     undefined_opcode
    .elseif vector >= VECTOR_IRQ
    jmp     irq
    .else
    .ifeq   (1 << vector) & ERROR_CODE_VECTORS
    pushq   $0
    .endif
    pushq   $vector
    jmp     fault
    .endif
    .set    vector, vector + 1
    .endr

fault:
    mov     %rsp, %rdi
    mov     %cr2, %rsi
    and     $-16, %rsp
    call    exception
park:
    cli
    hlt
    jmp     park

irq:
    push    %rax
    mov     $PIC_EOI, %al
    outb    %al, $PIC_MASTER
    pop     %rax
    iretq

/*
 * uint32_t system_call(uint32_t call, uint16_t port, uint32_t value)
 *
 * By a fault, since int, syscall and IOPL 3 do not work on the hosts that
 * interpret kernel mode.
 */
    .globl  system_call
system_call:
    mov     %edx, %eax
    mov     %esi, %edx
trap:
    ud2
system_call_return:
    ret

undefined_opcode:
    cmpq    $trap, (%rsp)
    jne     2f
    addq    $(system_call_return - trap), (%rsp)
    cmp     $CALL_INB, %edi
    je      3f
    cmp     $CALL_OUTB, %edi
    je      4f
    cmp     $CALL_INL, %edi
    je      5f
    cmp     $CALL_OUTL, %edi
    je      6f
    cmp     $CALL_WAIT, %edi
    jne     park
    sti                                 /* the only place that takes any */
    hlt
    cli
    iretq
2:  pushq   $0
    pushq   $VECTOR_UNDEFINED
    jmp     fault
3:  inb     %dx, %al
    iretq
4:  outb    %al, %dx
    iretq
5:  inl     %dx, %eax
    iretq
6:  outl    %eax, %dx
    iretq

    .data
    .balign 16
    .globl  gdt
gdt:
    .quad   0
    .quad   0x00cf9b000000ffff          /* SEG_CODE32 */
    .quad   0x00af9b000000ffff          /* SEG_CODE64 */
    .quad   0x00cf93000000ffff          /* SEG_DATA */
    .quad   0x00cff3000000ffff          /* SEG_USER_DATA */
    .quad   0x00affb000000ffff          /* SEG_USER_CODE64 */
    .fill   2 * CPUS, 8, 0          /* SEG_TSS, two entries each */
gdt_pointer:
    .word   . - gdt - 1
    .long   gdt

    /* In the image, so that a reset starts from these values again. */
    .globl  cpus_started, cpus_wanted
    .balign 4
cpus_started:
    .long   0
cpus_wanted:
    .long   1

    .section .note.GNU-stack, "", @progbits
