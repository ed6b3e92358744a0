/*
 * Guest payload: QEMU's fw_cfg device, through its DMA interface
 *
 * See docs/specs/fw_cfg.rst.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"

#define FW_CFG_FILE_DIR 0x19

#define DMA_ERROR       0x01
#define DMA_READ        0x02
#define DMA_SELECT      0x08

/* Big-endian, as is the directory. */
struct dma_request {
    uint32_t control;
    uint32_t length;
    uint64_t address;
} __attribute__((aligned(16)));

struct dir_entry {
    uint32_t size;
    uint16_t select;
    uint16_t reserved;
    char name[56];
};

static void dma(uint32_t control, void *buf, uint32_t len)
{
    static struct dma_request request;
    uint32_t left;

    request.control = __builtin_bswap32(control);
    request.length = __builtin_bswap32(len);
    request.address = __builtin_bswap64((uintptr_t)buf);
    fw_cfg_dma(&request);
    do {
        left = __atomic_load_n(&request.control, __ATOMIC_ACQUIRE);
        left = __builtin_bswap32(left);
    } while (left & ~DMA_ERROR);
    if (left) {
        say("error fw_cfg refuses a read of %lu bytes\n", (unsigned long)len);
        arch_halt();
    }
}

void fw_cfg_read(uint16_t key, void *buf, uint32_t len)
{
    dma((uint32_t)key << 16 | DMA_SELECT | DMA_READ, buf, len);
}

/* Returns how much of the file was read; 0 when there is no such file. */
uint32_t fw_cfg_read_file(const char *name, void *buf, uint32_t size)
{
    static struct dir_entry entry;
    uint32_t n;

    fw_cfg_read(FW_CFG_FILE_DIR, &n, sizeof(n));
    for (n = __builtin_bswap32(n); n; n--) {
        dma(DMA_READ, &entry, sizeof(entry));
        if (equal(entry.name, name)) {
            uint32_t len = __builtin_bswap32(entry.size);

            len = len < size ? len : size;
            fw_cfg_read(__builtin_bswap16(entry.select), buf, len);
            return len;
        }
    }
    return 0;
}
