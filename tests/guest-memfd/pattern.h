/*
 * The pattern that the guest payload fills memory with, for both sides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_MEMFD_PATTERN_H
#define GUEST_MEMFD_PATTERN_H

#include <stdint.h>

/*
 * The 64-bit word at guest-physical @addr.  The last factor is odd, so no
 * two addresses have the same word: a page that shows up in a wrong place is
 * found out.
 */
static inline uint64_t guest_memfd_pattern(uint64_t addr, uint64_t seed)
{
    return (addr + seed * 0xd1342543de82ef95ULL) * 0x9e3779b97f4a7c15ULL;
}

#endif
