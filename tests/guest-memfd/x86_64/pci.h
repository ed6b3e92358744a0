/*
 * Configuration space of the devices on the first PCI bus
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_MEMFD_X86_64_PCI_H
#define GUEST_MEMFD_X86_64_PCI_H

#include "io.h"

#define PCI_ADDRESS     0xcf8
#define PCI_DATA        0xcfc

/* The next access of PCI_DATA is to @reg, rounded down, of the device. */
static inline void pci_select(uint32_t device, uint8_t reg)
{
    outl(PCI_ADDRESS, 0x80000000u | device << 11 | (reg & ~3u));
}

static inline uint32_t pci_read(uint32_t device, uint8_t reg)
{
    pci_select(device, reg);
    return inl(PCI_DATA);
}

static inline void pci_write(uint32_t device, uint8_t reg, uint32_t value)
{
    pci_select(device, reg);
    outl(PCI_DATA, value);
}

#endif
