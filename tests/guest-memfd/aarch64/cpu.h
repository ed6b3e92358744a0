/*
 * What start.S, link.ld and cpu.c have for each other
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_MEMFD_AARCH64_CPU_H
#define GUEST_MEMFD_AARCH64_CPU_H

#include <stdint.h>

/* The RAM that the payload uses. */
extern char own_start[], own_end[];

/* Where a CPU starts, with the top of its stack in x0. */
void cpu_entry(void);

/* start.S calls these. */
void cpu_main(unsigned cpu);
void exception(uint64_t esr, uint64_t elr, uint64_t far);

#endif
