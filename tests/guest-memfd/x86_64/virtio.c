/*
 * Guest payload on x86-64: virtio devices (1.0 and later)
 *
 * There is no firmware that has given their registers addresses: we do.
 *
 *   disk N BYTES START LENGTH  read the disk N times, BYTES each, into that
 *                              range: "ok ticks=N"
 *   balloon START              do what the balloon wants, with the pages from
 *                              START on: "ok pages=N ticks=N", where N is how
 *                              many it has then
 *   vmem                       plug or unplug what virtio-mem wants: "ok
 *                              start=N bytes=N ticks=N": what is plugged then
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "payload.h"
#include "pci.h"
#include "virtio.h"

#define ID_BLOCK        0x10421af4
#define ID_BALLOON      0x10451af4
#define ID_MEM          0x10581af4
#define PCI_COMMAND     0x04
#define PCI_BAR0        0x10
#define PCI_CAPS        0x34
#define MEMORY_AND_DMA  6

/* Where we put the registers of the device that is in use */
#define BAR             0xfe000000ULL
#define BAR_SIZE        0x10000

/* virtio 1.2, 4.1.4: kinds of capabilities */
#define VENDOR          0x09
#define COMMON          1
#define NOTIFY          2
#define DEVICE          4

/* ... 2.1: states of a driver, and 6: features, from 32 on in another word */
#define FOUND           3               /* and there is a driver */
#define FEATURES_OK     11
#define DRIVER_OK       15
#define VERSION_1       1
#define MEM_INACCESSIBLE 2

#define MAX_SIZE        1024
#define PARTS           3               /* of a request, at most */
#define MAX_REQUESTS    (256 / PARTS)
#define NEXT            1
#define DEVICE_WRITES   2

#define SECTOR          512
#define BALLOON_PAGES   1024            /* in a request */
#define MEM_PLUG        0
#define MEM_UNPLUG      1

/* The common registers; 64 bits are two of 32 */
struct common {
    uint32_t offered_word, offered, accepted_word, accepted;
    uint16_t msix, queues;
    uint8_t status, generation;
    uint16_t queue, size, queue_msix, enable, notify;
    uint32_t part[2], available[2], used[2];
};

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

/* Registers of the device in use, and so volatile */
static volatile struct common *common;
static volatile uint32_t *config;       /* what is the device's own */
static volatile uint16_t *notify;       /* of the queue */

/* One queue */
static char pages[8 * PAGE_SIZE] __attribute__((aligned(4096)));
static struct {
    uint8_t number;
    uint16_t size;
    struct part *part;
    struct available *available;
    struct used *used;
} queue;

/* Find the registers, and give them addresses; false if some are missing. */
static bool map_registers(unsigned device)
{
    uint64_t found[DEVICE + 1] = {};
    uint32_t multiplier = 0, bar = 0;

    for (uint8_t at = pci_read(device, PCI_CAPS); at;
         at = pci_read(device, at) >> 8) {
        uint32_t cap = pci_read(device, at);

        if ((cap & 0xff) == VENDOR && cap >> 24 <= DEVICE) {
            found[cap >> 24] = BAR + pci_read(device, at + 8);
            bar = pci_read(device, at + 4) & 0xff;      /* of all of them */
            if (cap >> 24 == NOTIFY) {
                multiplier = pci_read(device, at + 16);
            }
        }
    }
    if (!found[COMMON] || !found[NOTIFY] || !arch_map(BAR, BAR + BAR_SIZE)) {
        return false;
    }
    pci_write(device, PCI_BAR0 + 4 * bar, BAR);
    pci_write(device, PCI_BAR0 + 4 * bar + 4, 0);
    pci_write(device, PCI_COMMAND, MEMORY_AND_DMA);
    common = (void *)found[COMMON];
    config = (void *)found[DEVICE];
    common->queue = queue.number;
    notify = (void *)(found[NOTIFY] + common->notify * multiplier);
    return true;
}

/* Take what we know of @features, of those that the device offers. */
static bool agree(uint32_t features)
{
    common->status = 0;
    common->status = FOUND;
    common->offered_word = common->accepted_word = 0;
    common->accepted = common->offered & features;
    common->accepted_word = 1;
    common->accepted = VERSION_1;
    common->status = FEATURES_OK;
    return common->status == FEATURES_OK;
}

/* volatile: registers, as above */
static void set_address(volatile uint32_t *reg, const void *addr)
{
    reg[0] = (uintptr_t)addr;
    reg[1] = (uintptr_t)addr >> 32;
}

/*
 * Start a device with this queue alone, for @requests at a time; false after
 * an error line.
 */
static bool start(uint32_t id, uint32_t features, uint8_t number,
                  unsigned requests)
{
    unsigned device = 0;
    uint64_t offset;

    while (pci_read(device, 0) != id) {
        if (++device == 32) {
            say("error there is no such device\n");
            return false;
        }
    }
    queue.number = number;
    if (!map_registers(device) || !agree(features)) {
        say("error the device is no virtio 1.0\n");
        return false;
    }
    common->queue = number;
    queue.size = common->size;
    if (queue.size < requests * PARTS || queue.size > MAX_SIZE) {
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
    set_address(common->part, queue.part);
    set_address(common->available, queue.available);
    set_address(common->used, queue.used);
    common->enable = 1;
    common->status = DRIVER_OK;
    return true;
}

/* A register of 64 bits */
static uint64_t config64(unsigned offset)
{
    return config[offset / 4] + ((uint64_t)config[offset / 4 + 1] << 32);
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
    *notify = queue.number;
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
    if (!start(ID_BLOCK, 0, 0, MAX_REQUESTS)) {
        return;
    }
    places = len / bytes;
    sectors = config64(0);
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
    if (!start(ID_BALLOON, 0, 0, 1)) {
        return;
    }
    wanted = config[0];
    actual = has = config[1];
    if (wanted < actual && !start(ID_BALLOON, 0, 1, 1)) {
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
        config[1] = has;
    }
    say("ok pages=%lu ticks=%lu\n", (uint64_t)has, arch_clock() - begin);
}

static void vmem(void)
{
    static struct {
        uint64_t type, start, blocks;
    } wish;
    /* volatile: the device writes it */
    static volatile uint16_t answer[8];
    uint64_t begin = arch_clock(), block, from, plugged, wanted;

    if (!start(ID_MEM, MEM_INACCESSIBLE, 0, 1)) {
        return;
    }
    /* virtio 1.2, 5.15.4 */
    block = config64(0);
    from = config64(16);
    plugged = config64(40);
    wanted = config64(48);
    if (wanted != plugged) {
        uint64_t less = wanted < plugged ? wanted : plugged;
        uint64_t more = wanted < plugged ? plugged : wanted;

        wish.type = wanted < plugged ? MEM_UNPLUG : MEM_PLUG;
        wish.start = from + less;
        wish.blocks = (more - less) / block;
        answer[0] = 0xffff;
        set_part(0, 0, &wish, sizeof(wish), NEXT);
        set_part(0, 1, answer, sizeof(answer), DEVICE_WRITES);
        submit(0);
        kick();
        while (!done()) {
            continue;
        }
        if (answer[0]) {
            say("error virtio-mem says %lu\n", (uint64_t)answer[0]);
            return;
        }
    }
    say("ok start=%lu bytes=%lu ticks=%lu\n", from, config64(40),
        arch_clock() - begin);
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
    } else if (equal(arg[0], "vmem") && args == 1) {
        vmem();
    } else {
        return false;
    }
    return true;
}
