/*
 * The machine "virt"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_MEMFD_AARCH64_MACHINE_H
#define GUEST_MEMFD_AARCH64_MACHINE_H

#include "payload.h"

#define DEVICE_TREE         0x40000000UL    /* the start of RAM */
#define DEVICE_TREE_SIZE    0x100000

/* devicetree.c: all ranges of RAM */
void devicetree_ram(struct range_list *list);

#endif
