/*
 * Guest payload on arm64: the machine "virt"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"
#include "machine.h"

#define UART            0x09000000      /* a PL011 */
#define UART_DATA       (UART + 0x000)
#define UART_FLAGS      (UART + 0x018)
#define UART_IMSC       (UART + 0x038)
#define UART_IRQ        33
#define FLAG_RX_EMPTY   0x10
#define FLAG_TX_FULL    0x20
#define INT_RECEIVED    0x50            /* also after a time */

#define FW_CFG_DMA      0x09020010

#define GICD            0x08000000
#define GICD_CTLR       (GICD + 0x000)
#define GICD_IGROUPR    (GICD + 0x080)
#define GICD_ISENABLER  (GICD + 0x100)
#define GICD_PRIORITY   (GICD + 0x400)
#define GICD_TARGETS    (GICD + 0x800)
#define GICV2_PIDR2     (GICD + 0xfe8)
#define GICC            0x08010000
#define GICC_CTLR       (GICC + 0x00)
#define GICC_PMR        (GICC + 0x04)

/* By one plain instruction, which is all that KVM can emulate for a device */
static inline uint32_t read32(uint64_t addr)
{
    uint32_t value;

    asm volatile("ldr %w0, [%1]" : "=r" (value) : "r" (addr) : "memory");
    return value;
}

static inline void write32(uint64_t addr, uint32_t value)
{
    asm volatile("str %w0, [%1]" : : "r" (value), "r" (addr) : "memory");
}

bool serial_ready(void)
{
    return !(read32(UART_FLAGS) & FLAG_RX_EMPTY);
}

char serial_get(void)
{
    return read32(UART_DATA);
}

void serial_put(char c)
{
    while (read32(UART_FLAGS) & FLAG_TX_FULL) {
        continue;
    }
    write32(UART_DATA, c);
}

/*
 * The UART's interrupt ends the wait.  It is not taken, since interrupts are
 * masked, and goes away as the character is read.
 */
void serial_wait(void)
{
    asm volatile("wfi" : : : "memory");
}

void fw_cfg_dma(const void *request)
{
    uint64_t value = __builtin_bswap64((uintptr_t)request);

    asm volatile("dsb sy; str %0, [%1]"
                 : : "r" (value), "r" (FW_CFG_DMA) : "memory");
}

/* No interrupt but the UART's, to the boot processor */
void arch_init(void)
{
    bool v2 = (read32(GICV2_PIDR2) >> 4 & 0xf) == 2;

    write32(GICD_IGROUPR + UART_IRQ / 32 * 4, 1u << UART_IRQ % 32);
    write32(GICD_PRIORITY + UART_IRQ / 4 * 4, 0);
    write32(GICD_ISENABLER + UART_IRQ / 32 * 4, 1u << UART_IRQ % 32);
    if (v2) {
        write32(GICD_TARGETS + UART_IRQ / 4 * 4, 1u << UART_IRQ % 4 * 8);
        write32(GICD_CTLR, 3);
        write32(GICC_PMR, 0xff);
        write32(GICC_CTLR, 3);
    } else {
        write32(GICD_CTLR, 0x12);       /* affinity routing, group 1 */
        asm volatile("msr S3_0_C12_C12_5, %0; isb" /* ICC_SRE_EL1 */
                     : : "r" (1ULL));
        asm volatile("msr S3_0_C4_C6_0, %0" /* ICC_PMR_EL1 */
                     : : "r" (0xffULL));
        asm volatile("msr S3_0_C12_C12_7, %0; isb" /* ICC_IGRPEN1_EL1 */
                     : : "r" (1ULL));
    }
    write32(UART_IMSC, INT_RECEIVED);
}

void arch_ram(struct range_list *list)
{
    devicetree_ram(list);
    range_exclude(list, DEVICE_TREE, DEVICE_TREE + DEVICE_TREE_SIZE);
}

uint64_t arch_ram_size(void)
{
    static struct range_list list;
    uint64_t size = 0;

    list.n = 0;
    devicetree_ram(&list);
    for (unsigned i = 0; i < list.n; i++) {
        size += list.r[i].end - list.r[i].start;
    }
    return size;
}

bool arch_command(unsigned args, char **arg)
{
    return false;
}
