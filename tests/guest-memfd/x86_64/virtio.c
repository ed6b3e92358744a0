/*
 * Guest payload on x86-64: virtio devices, of the kind before virtio 1.0
 *
 * Their registers are ports, and there is no firmware that has given them
 * any: we do.
 *
 *   disk N BYTES START LENGTH  read the disk N times, BYTES each, into that
 *                              range: "ok ticks=N"
 *   balloon START              do what the balloon wants, with the pages from
 *                              START on: "ok pages=N ticks=N", where N is how
 *                              many it has then
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"
#include "pci.h"
#include "virtio.h"

#define ID_BLOCK        0x10011af4
#define ID_BALLOON      0x10021af4
#define PCI_COMMAND     0x04
#define PCI_BAR0        0x10
#define IO_AND_DMA      5

/* Registers */
#define PORTS           0xc000
#define GUEST_FEATURES  (PORTS + 0x04)
#define QUEUE_PFN       (PORTS + 0x08)
#define QUEUE_SIZE      (PORTS + 0x0c)
#define QUEUE_SELECT    (PORTS + 0x0e)
#define QUEUE_NOTIFY    (PORTS + 0x10)
#define STATUS          (PORTS + 0x12)
#define CONFIG          (PORTS + 0x14)
#define FOUND           3               /* and there is a driver */
#define DRIVER_OK       7

#define MAX_SIZE        1024
#define PARTS           3               /* of a request, at most */
#define MAX_REQUESTS    (256 / PARTS)
#define NEXT            1
#define DEVICE_WRITES   2

#define SECTOR          512
#define BALLOON_PAGES   1024            /* in a request */

struct part {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

struct available {
    uint16_t flags, index, ring[];
};

struct used {
    uint16_t flags, index;
    struct {
        uint32_t id, len;
    } ring[];
};

/* One queue, which the device finds by this page and its size */
static char pages[8 * PAGE_SIZE] __attribute__((aligned(4096)));
static struct {
    uint8_t number;
    uint16_t size;
    struct part *part;
    struct available *available;
    struct used *used;
} queue;

/* Start a device with this queue alone; false after an error line. */
static bool start(uint32_t id, uint8_t number)
{
    unsigned device = 0;
    uint64_t offset;

    while (pci_read(device, 0) != id) {
        if (++device == 32) {
            say("error there is no such device\n");
            return false;
        }
    }
    pci_write(device, PCI_BAR0, PORTS);
    pci_write(device, PCI_COMMAND, IO_AND_DMA);
    outb(STATUS, 0);
    outb(STATUS, FOUND);
    outl(GUEST_FEATURES, 0);

    outb(QUEUE_SELECT, number);
    queue.number = number;
    queue.size = inl(QUEUE_SIZE);
    if (queue.size < MAX_REQUESTS || queue.size > MAX_SIZE) {
        say("error a queue for %lu\n", (uint64_t)queue.size);
        return false;
    }
    for (unsigned i = 0; i < sizeof(pages); i++) {
        pages[i] = 0;
    }
    offset = queue.size * sizeof(struct part);
    queue.part = (void *)pages;
    queue.available = (void *)(pages + offset);
    offset += sizeof(struct available) + (queue.size + 1) * 2;
    queue.used = (void *)(pages + ((offset + PAGE_SIZE - 1) & -PAGE_SIZE));
    outl(QUEUE_PFN, (uintptr_t)pages / PAGE_SIZE);
    outb(STATUS, DRIVER_OK);
    return true;
}

/* Put a part of request @number where its @i-th belongs. */
static void set_part(unsigned number, unsigned i, volatile void *addr,
                     uint32_t len, uint16_t flags)
{
    unsigned at = number * PARTS + i;

    queue.part[at] = (struct part) {
        .addr = (uintptr_t)addr, .len = len, .flags = flags, .next = at + 1,
    };
}

/* The device does not see it before kick(). */
static void submit(unsigned number)
{
    uint16_t index = queue.available->index;

    queue.available->ring[index % queue.size] = number * PARTS;
    __atomic_store_n(&queue.available->index, index + 1, __ATOMIC_RELEASE);
}

static void kick(void)
{
    outb(QUEUE_NOTIFY, queue.number);
}

static uint16_t done(void)
{
    return __atomic_load_n(&queue.used->index, __ATOMIC_ACQUIRE);
}

static struct {
    uint32_t type, reserved;
    uint64_t sector;
} request[MAX_REQUESTS];
/* volatile: the device writes them */
static volatile uint8_t status[MAX_REQUESTS];

static void disk(uint64_t n, uint64_t bytes, uint64_t to, uint64_t len)
{
    uint64_t chunk = bytes / SECTOR;
    uint64_t sectors, places, begin;
    uint16_t before = 0;

    if (!bytes || bytes % SECTOR || len < bytes) {
        say("error BYTES is no number of sectors that fits into the range\n");
        return;
    }
    if (!start(ID_BLOCK, 0)) {
        return;
    }
    places = len / bytes;
    sectors = inl(CONFIG) + ((uint64_t)inl(CONFIG + 4) << 32);
    if (sectors < chunk || !arch_map(to, to + len)) {
        say("error the disk has %lu sectors\n", sectors);
        return;
    }
    begin = arch_clock();
    for (uint64_t next = 0; next < n;) {
        unsigned batch = n - next < MAX_REQUESTS ? n - next : MAX_REQUESTS;

        for (unsigned i = 0; i < batch; i++, next++) {
            request[i].sector = next * chunk % (sectors - chunk + 1);
            status[i] = 0xff;
            set_part(i, 0, &request[i], sizeof(request[i]), NEXT);
            set_part(i, 1, (void *)(to + next % places * bytes), bytes,
                     NEXT | DEVICE_WRITES);
            set_part(i, 2, &status[i], 1, DEVICE_WRITES);
            submit(i);
        }
        kick();
        while ((uint16_t)(done() - before) != batch) {
            __builtin_ia32_pause();
        }
        before += batch;
        for (unsigned i = 0; i < batch; i++) {
            if (status[i]) {
                say("error the disk says %lu\n", (uint64_t)status[i]);
                return;
            }
        }
    }
    say("ok ticks=%lu\n", arch_clock() - begin);
}

static void balloon(uint64_t from)
{
    static uint32_t page[BALLOON_PAGES];
    uint32_t wanted, actual, has;
    uint64_t begin = arch_clock();

    /* Both queues of the device: inflate, deflate */
    if (!start(ID_BALLOON, 0)) {
        return;
    }
    wanted = inl(CONFIG);
    actual = has = inl(CONFIG + 4);
    if (wanted < actual && !start(ID_BALLOON, 1)) {
        return;
    }
    while (has != wanted) {
        bool more = has < wanted;
        uint32_t n = more ? wanted - has : has - wanted;
        uint16_t before = done();

        n = n < BALLOON_PAGES ? n : BALLOON_PAGES;
        for (uint32_t i = 0; i < n; i++) {
            page[i] = from / PAGE_SIZE + (more ? has + i : has - 1 - i);
        }
        set_part(0, 0, page, n * sizeof(page[0]), 0);
        submit(0);
        kick();
        while (done() == before) {
            continue;
        }
        has = more ? has + n : has - n;
        outl(CONFIG + 4, has);
    }
    say("ok pages=%lu ticks=%lu\n", (uint64_t)has, arch_clock() - begin);
}

bool virtio_command(unsigned args, char **arg)
{
    uint64_t number[4];

    for (unsigned i = 1; i < args; i++) {
        if (!parse_number(arg[i], &number[i - 1])) {
            return false;
        }
    }
    if (equal(arg[0], "disk") && args == 5) {
        disk(number[0], number[1], number[2], number[3]);
    } else if (equal(arg[0], "balloon") && args == 2) {
        balloon(number[0]);
    } else {
        return false;
    }
    return true;
}
