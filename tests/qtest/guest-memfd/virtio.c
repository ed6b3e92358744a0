/*
 * Drivers for virtio devices; here, those that give guest RAM back to the host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "../libqos/generic-pcihost.h"
#include "../libqos/pci-pc.h"
#include "../libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_balloon.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_mem.h"
#include "virtio.h"


/* As in BALLOON_DEVICE, VIRTIO_MEM_DEVICE and IO_DEVICE */
enum { BALLOON_SLOT = 4, VIRTIO_MEM_SLOT = 5, IO_SLOT = 6, END_SLOT };

/* The balloon's; none here has both of the last */
enum { INFLATE, DEFLATE, STATS, REPORTING, HINTING = REPORTING };

struct VirtioDriver {
    QTestState *qts;
    QPCIBus *bus;
    QGuestAllocator alloc;
    QVirtioPCIDevice *pci;
    QVirtQueue *queue[4];
    int queues;
};

static QPCIBus *bus_new(QTestState *qts, QGuestAllocator *alloc)
{
#ifdef HOST_AARCH64
    QGenericPCIBus *generic = g_new0(QGenericPCIBus, 1);

    qpci_init_generic(generic, qts, alloc, false);
    return &generic->bus;
#else
    return qpci_new_pc(qts, alloc);
#endif
}

static void bus_free(QPCIBus *bus)
{
#ifdef HOST_AARCH64
    g_free(container_of(bus, QGenericPCIBus, bus));
#else
    qpci_free_pc(bus);
#endif
}

static VirtioDriver *start(VM *vm, int slot, int queues, uint64_t features)
{
    const uint64_t unwanted = QVIRTIO_F_BAD_FEATURE |
                              1ULL << VIRTIO_RING_F_INDIRECT_DESC |
                              1ULL << VIRTIO_RING_F_EVENT_IDX;
    const uint64_t window = QEMU_ALIGN_DOWN((RINGS_END - RINGS_START) /
                                            (END_SLOT - BALLOON_SLOT), 4096);
    const uint64_t rings = RINGS_START + (slot - BALLOON_SLOT) * window;
    QPCIAddress address = { .devfn = QPCI_DEVFN(slot, 0) };
    VirtioDriver *driver = g_new0(VirtioDriver, 1);
    QVirtioDevice *device;

    driver->qts = vm->qts;
    driver->queues = queues;
    alloc_init(&driver->alloc, ALLOC_NO_FLAGS, rings, rings + window, 4096);

    /* Each driver has a bus of its own: keep their BARs apart */
    driver->bus = bus_new(vm->qts, &driver->alloc);
    driver->bus->mmio_alloc_ptr += slot * MiB;
    driver->bus->pio_alloc_ptr += slot * 0x100;

    driver->pci = virtio_pci_new(driver->bus, &address);
    g_assert(driver->pci);
    device = &driver->pci->vdev;
    qvirtio_pci_device_enable(driver->pci);
    qvirtio_start_device(device);
    qvirtio_set_features(device, qvirtio_get_features(device) & features &
                                 ~unwanted);
    for (int i = 0; i < queues; i++) {
        driver->queue[i] = qvirtqueue_setup(device, &driver->alloc, i);
    }
    qvirtio_set_driver_ok(device);
    return driver;
}

void virtio_free(VirtioDriver *driver)
{
    for (int i = 0; i < driver->queues; i++) {
        qvirtqueue_cleanup(driver->pci->vdev.bus, driver->queue[i],
                           &driver->alloc);
    }
    g_free(driver->pci->pdev);
    g_free(driver->pci);
    bus_free(driver->bus);
    alloc_destroy(&driver->alloc);
    g_free(driver);
}

static bool poll_done(VirtioDriver *driver, QVirtQueue *queue)
{
    bool done = qvirtqueue_get_buf(driver->qts, queue, NULL, NULL);

    if (done) {
        /* All descriptors are free again: one request is under way at a time */
        queue->free_head = 0;
        queue->num_free = queue->size;
    }
    return done;
}

static void wait_done(VirtioDriver *driver, QVirtQueue *queue)
{
    VM_WAIT(poll_done(driver, queue));
}

/* Let the device have what was added to a queue, and wait until it is done */
static void kick(VirtioDriver *driver, QVirtQueue *queue, uint32_t head)
{
    qvirtqueue_kick(driver->qts, &driver->pci->vdev, queue, head);
    wait_done(driver, queue);
}

/* Have the device read something */
static void give(VirtioDriver *driver, int index, const void *data, size_t len)
{
    uint64_t buf = guest_alloc(&driver->alloc, len);
    QVirtQueue *queue = driver->queue[index];

    qtest_bufwrite(driver->qts, buf, data, len);
    kick(driver, queue,
         qvirtqueue_add(driver->qts, queue, buf, len, false, false));
    guest_free(&driver->alloc, buf);
}

/* Have the device know of free memory, which is the buffer itself */
static void give_free(VirtioDriver *driver, int index, uint64_t start,
                      uint64_t len)
{
    QVirtQueue *queue = driver->queue[index];

    kick(driver, queue,
         qvirtqueue_add(driver->qts, queue, start, len, true, false));
}

/* The balloon takes the page numbers themselves */
static void send_pages(VirtioDriver *driver, int index, uint64_t start,
                       uint64_t len)
{
    size_t n = len >> VIRTIO_BALLOON_PFN_SHIFT;
    g_autofree uint32_t *pages = g_new(uint32_t, n);

    for (size_t i = 0; i < n; i++) {
        pages[i] = cpu_to_le32((start >> VIRTIO_BALLOON_PFN_SHIFT) + i);
    }
    give(driver, index, pages, n * sizeof(*pages));
}

VirtioDriver *balloon_start(VM *vm)
{
    return start(vm, BALLOON_SLOT, REPORTING + 1, UINT64_MAX);
}

void balloon_inflate(VirtioDriver *driver, uint64_t start, uint64_t len)
{
    send_pages(driver, INFLATE, start, len);
}

void balloon_deflate(VirtioDriver *driver, uint64_t start, uint64_t len)
{
    send_pages(driver, DEFLATE, start, len);
}

void balloon_report(VirtioDriver *driver, uint64_t start, uint64_t len)
{
    give_free(driver, REPORTING, start, len);
}

static uint32_t hint_command(VirtioDriver *driver)
{
    return qvirtio_config_readl(&driver->pci->vdev,
                                offsetof(struct virtio_balloon_config,
                                         free_page_hint_cmd_id));
}

static void send_hint_command(VirtioDriver *driver, uint32_t command)
{
    uint32_t data = cpu_to_le32(command);

    give(driver, HINTING, &data, sizeof(data));
}

/* The hints stand between the device's command and the one to stop */
void balloon_hint(VirtioDriver *driver, uint64_t start, uint64_t len)
{
    uint32_t command;

    VM_WAIT((command = hint_command(driver)) > VIRTIO_BALLOON_CMD_ID_DONE);
    send_hint_command(driver, command);
    give_free(driver, HINTING, start, len);
    send_hint_command(driver, VIRTIO_BALLOON_CMD_ID_STOP);
}

VirtioDriver *virtio_mem_start(VM *vm)
{
    return start(vm, VIRTIO_MEM_SLOT, 1, UINT64_MAX);
}

static uint64_t mem_config(VirtioDriver *driver, size_t offset)
{
    return qvirtio_config_readq(&driver->pci->vdev, offset);
}

uint64_t virtio_mem_start_address(VirtioDriver *driver)
{
    return mem_config(driver, offsetof(struct virtio_mem_config, addr));
}

uint64_t virtio_mem_block_size(VirtioDriver *driver)
{
    return mem_config(driver, offsetof(struct virtio_mem_config, block_size));
}

uint64_t virtio_mem_plugged(VirtioDriver *driver)
{
    return mem_config(driver, offsetof(struct virtio_mem_config,
                                       plugged_size));
}

uint64_t virtio_mem_requested(VirtioDriver *driver)
{
    return mem_config(driver, offsetof(struct virtio_mem_config,
                                       requested_size));
}

void virtio_mem_request(VM *vm, uint64_t size)
{
    qtest_qmp_assert_success(vm->qts, "{'execute': 'qom-set', 'arguments': {"
                             "'path': 'vmem0', 'property': 'requested-size',"
                             "'value': %" PRIu64 "}}", size);
}

/* Returns: what the device says */
static uint16_t mem_ask(VirtioDriver *driver, uint16_t type, uint64_t start,
                        uint64_t len)
{
    uint64_t blocks = len / virtio_mem_block_size(driver);
    struct virtio_mem_req request = { .type = cpu_to_le16(type) };
    struct virtio_mem_resp response;
    uint64_t buf = guest_alloc(&driver->alloc,
                               sizeof(request) + sizeof(response));
    QVirtQueue *queue = driver->queue[0];
    uint32_t head;

    /* All requests that have a range have it in the same place */
    request.u.plug.addr = cpu_to_le64(start);
    request.u.plug.nb_blocks = cpu_to_le16(blocks);
    g_assert_cmpint(blocks, <=, UINT16_MAX);

    qtest_memwrite(driver->qts, buf, &request, sizeof(request));
    head = qvirtqueue_add(driver->qts, queue, buf, sizeof(request), false,
                          true);
    qvirtqueue_add(driver->qts, queue, buf + sizeof(request),
                   sizeof(response), true, false);
    kick(driver, queue, head);
    qtest_memread(driver->qts, buf + sizeof(request), &response,
                  sizeof(response));
    guest_free(&driver->alloc, buf);
    return le16_to_cpu(response.type);
}

static void mem_send(VirtioDriver *driver, uint16_t type, uint64_t start,
                     uint64_t len)
{
    g_assert_cmpint(mem_ask(driver, type, start, len), ==,
                    VIRTIO_MEM_RESP_ACK);
}

void virtio_mem_plug(VirtioDriver *driver, uint64_t start, uint64_t len)
{
    mem_send(driver, VIRTIO_MEM_REQ_PLUG, start, len);
}

void virtio_mem_unplug(VirtioDriver *driver, uint64_t start, uint64_t len)
{
    mem_send(driver, VIRTIO_MEM_REQ_UNPLUG, start, len);
}

bool virtio_mem_try(VirtioDriver *driver, bool plug, uint64_t start,
                    uint64_t len)
{
    return mem_ask(driver, plug ? VIRTIO_MEM_REQ_PLUG : VIRTIO_MEM_REQ_UNPLUG,
                   start, len) == VIRTIO_MEM_RESP_ACK;
}

void virtio_mem_unplug_all(VirtioDriver *driver)
{
    mem_send(driver, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0);
}

VirtioDriver *virtio_io_start(VM *vm, int queues)
{
    return start(vm, IO_SLOT, queues, 1ULL << VIRTIO_F_VERSION_1);
}

void virtio_io_move(VirtioDriver *driver, VM *vm)
{
    driver->qts = vm->qts;
    driver->bus->qts = vm->qts;
}

uint64_t virtio_alloc(VirtioDriver *driver, size_t len)
{
    return guest_alloc(&driver->alloc, len);
}

void virtio_submit(VirtioDriver *driver, int index, const VirtioBuf *bufs,
                   int n)
{
    QVirtQueue *queue = driver->queue[index];
    uint32_t head = queue->free_head;

    for (int i = 0; i < n; i++) {
        qvirtqueue_add(driver->qts, queue, bufs[i].addr, bufs[i].len,
                       bufs[i].fill, i < n - 1);
    }
    qvirtqueue_kick(driver->qts, &driver->pci->vdev, queue, head);
}

bool virtio_poll(VirtioDriver *driver, int index)
{
    return poll_done(driver, driver->queue[index]);
}

void virtio_wait(VirtioDriver *driver, int index)
{
    wait_done(driver, driver->queue[index]);
}
