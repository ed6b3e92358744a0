/*
 * Port input and output
 *
 * User mode asks start.S to do it, as it asks for the other things that only
 * kernel mode can do.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_MEMFD_X86_64_IO_H
#define GUEST_MEMFD_X86_64_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "cpu.h"
#include "layout.h"

static inline bool in_user_mode(void)
{
    uint16_t cs;

    asm volatile("mov %%cs, %0" : "=r" (cs));
    return cs & 3;
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;

    if (in_user_mode()) {
        return system_call(CALL_INB, port, 0);
    }
    asm volatile("inb %1, %0" : "=a" (value) : "d" (port) : "memory");
    return value;
}

static inline void outb(uint16_t port, uint8_t value)
{
    if (in_user_mode()) {
        system_call(CALL_OUTB, port, value);
    } else {
        asm volatile("outb %0, %1" : : "a" (value), "d" (port) : "memory");
    }
}

static inline uint32_t inl(uint16_t port)
{
    return system_call(CALL_INL, port, 0);
}

static inline void outl(uint16_t port, uint32_t value)
{
    system_call(CALL_OUTL, port, value);
}

#endif
