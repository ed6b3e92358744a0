/*
 * Guest payload on x86-64: what the machines "pc" and "q35" have in common,
 * and the one thing that differs, where their host bridge keeps the PAM
 * registers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"
#include "layout.h"
#include "io.h"
#include "pci.h"
#include "virtio.h"

#define COM1            0x3f8           /* a 16550, interrupt 4 */
#define COM1_IRQ        4
#define UART_DATA       (COM1 + 0)
#define UART_IER        (COM1 + 1)
#define UART_FCR        (COM1 + 2)
#define UART_MCR        (COM1 + 4)
#define UART_LSR        (COM1 + 5)
#define IER_RECEIVED    0x01
#define FCR_ENABLE      0x07            /* and clear both FIFOs */
#define MCR_INTERRUPT   0x0b            /* OUT2 lets interrupts out */
#define LSR_RECEIVED    0x01
#define LSR_CAN_SEND    0x20

#define FW_CFG_DMA_HIGH 0x514
#define FW_CFG_DMA_LOW  0x518

#define RESET_CONTROL   0xcf9
#define RESET_CPU       0x04
#define RESET_SYSTEM    0x02

#define HOST_BRIDGE     0               /* its number on the first bus */
#define ID_I440FX       0x12378086
#define ID_Q35          0x29c08086

#define VGA_HOLE        0xa0000
#define PAM_START       0xc0000
#define PAM_END         0x100000

#define E820_RAM        1

#define FW_CFG_RAM_SIZE 0x03

struct e820_entry {
    uint64_t start;
    uint64_t length;
    uint32_t type;
} __attribute__((packed));

bool serial_ready(void)
{
    return inb(UART_LSR) & LSR_RECEIVED;
}

char serial_get(void)
{
    return inb(UART_DATA);
}

void serial_put(char c)
{
    while (!(inb(UART_LSR) & LSR_CAN_SEND)) {
        continue;
    }
    outb(UART_DATA, c);
}

void serial_wait(void)
{
    system_call(CALL_WAIT, 0, 0);
}

void fw_cfg_dma(const void *request)
{
    outl(FW_CFG_DMA_HIGH, __builtin_bswap32((uintptr_t)request >> 32));
    outl(FW_CFG_DMA_LOW, __builtin_bswap32((uintptr_t)request));
}

void arch_init(void)
{
    /* Both interrupt controllers: no interrupt but the serial port's. */
    outb(PIC_MASTER, 0x11);
    outb(PIC_MASTER + 1, VECTOR_IRQ);
    outb(PIC_MASTER + 1, 0x04);
    outb(PIC_MASTER + 1, 0x01);
    outb(PIC_MASTER + 1, 0xff & ~(1 << COM1_IRQ));
    outb(PIC_SLAVE, 0x11);
    outb(PIC_SLAVE + 1, VECTOR_IRQ + 8);
    outb(PIC_SLAVE + 1, 0x02);
    outb(PIC_SLAVE + 1, 0x01);
    outb(PIC_SLAVE + 1, 0xff);

    cpu_enable_interrupts();

    outb(UART_FCR, FCR_ENABLE);
    outb(UART_MCR, MCR_INTERRUPT);
    outb(UART_IER, IER_RECEIVED);
}

static uint8_t pci_read8(uint8_t reg)
{
    pci_select(HOST_BRIDGE, reg);
    return inb(PCI_DATA + reg % 4);
}

static void pci_write8(uint8_t reg, uint8_t value)
{
    pci_select(HOST_BRIDGE, reg);
    outb(PCI_DATA + reg % 4, value);
}

/* The first of seven registers; 0 on a machine that we do not know. */
static uint8_t pam_register(void)
{
    switch (pci_read(HOST_BRIDGE, 0)) {
    case ID_I440FX:
        return 0x59;
    case ID_Q35:
        return 0x90;
    default:
        return 0;
    }
}

/*
 * Where the reads and writes of an address go: to the RAM below, or to the
 * ROM or nothing above.  The index is what a register has in each half.
 */
static const char *const pam_state[] = { "off", "ro", "wo", "on" };

/* All of PAM_START to PAM_END is always in one state here. */
static unsigned pam_get(void)
{
    uint8_t reg = pam_register();

    return reg ? pci_read8(reg + 1) & 3 : 0;
}

static void pam_set(unsigned state)
{
    uint8_t reg = pam_register();

    for (unsigned n = 0; n < 7; n++) {
        pci_write8(reg + n, state << 4 | (n ? state : 0));
    }
}

static void pam(unsigned args, char **arg)
{
    uint8_t reg = pam_register();
    uint64_t times;

    if (!reg) {
        say("error no PAM registers known for PCI device %lx\n",
            (uint64_t)pci_read(HOST_BRIDGE, 0));
        return;
    }
    if (args == 2 && equal(arg[1], "query")) {
        say("ok %s\n", pam_state[pam_get()]);
        return;
    }
    for (unsigned i = 0; args == 2 && i < 4; i++) {
        if (equal(arg[1], pam_state[i])) {
            pam_set(i);
            say("ok %s\n", pam_state[pam_get()]);
            return;
        }
    }
    if (args == 3 && equal(arg[1], "times") && parse_number(arg[2], &times)) {
        uint64_t start = arch_clock();

        for (uint64_t i = 0; i < times; i++) {
            pam_set(3);
            pam_set(0);
        }
        say("ok ticks=%lu\n", arch_clock() - start);
        return;
    }
    say("error usage: pam on|off|ro|wo|query | pam times N\n");
}

void arch_ram(struct range_list *list)
{
    static struct e820_entry map[32];
    unsigned n = fw_cfg_read_file("etc/e820", map, sizeof(map)) /
                 sizeof(map[0]);

    for (unsigned i = 0; i < n; i++) {
        if (map[i].type == E820_RAM) {
            range_add(list, map[i].start, map[i].start + map[i].length);
        }
    }
    /* There is RAM behind all of it, but only what PAM opens shows. */
    range_exclude(list, VGA_HOLE, pam_get() == 3 ? PAM_START : PAM_END);
}

uint64_t arch_ram_size(void)
{
    uint64_t size;

    fw_cfg_read(FW_CFG_RAM_SIZE, &size, sizeof(size));
    return size;
}

/*
 * pam on|off|ro|wo|query: "ok STATE".  KVM does not enforce ro.
 * pam times N: on and off, N times: "ok ticks=N"
 */
bool arch_command(unsigned args, char **arg)
{
    uint64_t port, value;

    if (equal(arg[0], "pam")) {
        pam(args, arg);
    } else if (equal(arg[0], "inb")) {
        if (args == 2 && parse_number(arg[1], &port)) {
            say("ok %lx\n", (uint64_t)inb(port));
        } else {
            say("error usage: inb PORT\n");
        }
    } else if (equal(arg[0], "outb")) {
        if (args == 3 && parse_number(arg[1], &port) &&
            parse_number(arg[2], &value)) {
            outb(port, value);
            say("ok\n");
        } else {
            say("error usage: outb PORT VALUE\n");
        }
    } else {
        return virtio_command(args, arg);
    }
    return true;
}

void arch_reset(void)
{
    outb(RESET_CONTROL, RESET_SYSTEM);
    outb(RESET_CONTROL, RESET_SYSTEM | RESET_CPU);
    arch_halt();
}
