/*
 * The processor: what start.S, link.ld and cpu.c have for each other and others
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_MEMFD_X86_64_CPU_H
#define GUEST_MEMFD_X86_64_CPU_H

#include <stdint.h>

/* The payload as it is in RAM, and the code of vector 0. */
extern char image[], own_end[], vectors[];
extern uint64_t gdt[];

/* How many CPUs came up since the job began, and how many it wants. */
extern uint32_t cpus_started, cpus_wanted;

struct fault_frame {
    uint64_t vector, error_code, rip, cs, rflags, rsp, ss;
};

/* start.S calls these three. */
void cpu_init(unsigned cpu);
void cpu_main(unsigned cpu);
void exception(const struct fault_frame *frame, uint64_t cr2);

/* @call is one of CALL_...; returns what it read. */
uint32_t system_call(uint32_t call, uint16_t port, uint32_t value);

/* Let the boot processor have the interrupts of the old controllers. */
void cpu_enable_interrupts(void);

#endif
