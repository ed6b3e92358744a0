/*
 * Guest payload on arm64: where the RAM is, from the device tree that QEMU
 * stores at the start of RAM
 *
 * See the Devicetree Specification, "Flattened Devicetree (DTB) Format".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"
#include "machine.h"

#define MAGIC       0xd00dfeed
#define BEGIN_NODE  1
#define END_NODE    2
#define PROPERTY    3
#define NOP         4

static uint32_t get32(uint64_t addr)
{
    return __builtin_bswap32(*(uint32_t *)addr);
}

static uint64_t get64(uint64_t addr)
{
    return (uint64_t)get32(addr) << 32 | get32(addr + 4);
}

static bool is_memory(const char *node)
{
    for (const char *name = "memory@"; *name; name++, node++) {
        if (*node != *name) {
            return false;
        }
    }
    return true;
}

/* QEMU gives addresses and sizes two cells each, and no memory deeper down. */
void devicetree_ram(struct range_list *list)
{
    uint64_t at = DEVICE_TREE + get32(DEVICE_TREE + 8);
    const char *strings = (char *)DEVICE_TREE + get32(DEVICE_TREE + 12);
    bool memory = false;

    if (get32(DEVICE_TREE) != MAGIC) {
        say("error no device tree at %lx\n", DEVICE_TREE);
        arch_halt();
    }
    for (;;) {
        uint32_t token = get32(at);

        at += 4;
        if (token == BEGIN_NODE) {
            memory = is_memory((char *)at);
            while (*(char *)at++) {
                continue;
            }
        } else if (token == PROPERTY) {
            uint32_t len = get32(at);

            if (memory && equal(strings + get32(at + 4), "reg")) {
                for (uint32_t i = 0; i < len; i += 16) {
                    uint64_t start = get64(at + 8 + i);

                    range_add(list, start, start + get64(at + 16 + i));
                }
            }
            at += 8 + len;
        } else if (token == END_NODE) {
            memory = false;
        } else if (token != NOP) {
            return;
        }
        at = (at + 3) & -4ULL;
    }
}
