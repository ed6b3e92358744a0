/*
 * Drivers for virtio devices: those that give guest RAM back to the host, and
 * one of the others, whose requests are the test's own
 *
 * They run in the test, not in the guest: the payload of tests/guest-memfd
 * goes on with what it does meanwhile, but must leave their rings alone.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_GUEST_MEMFD_VIRTIO_H
#define TESTS_GUEST_MEMFD_VIRTIO_H

#include "vm.h"

/* Guest RAM that the rings are in */
#define RINGS_START     VM_AT(8 * MiB)
#define RINGS_END       VM_AT(11 * MiB)

#define BALLOON_DEVICE \
    " -device virtio-balloon-pci,id=balloon0,addr=4,free-page-reporting=on"
#define HINTING_BALLOON_DEVICE \
    " -object iothread,id=hints0 -device virtio-balloon-pci,id=balloon0," \
    "addr=4,free-page-hint=on,iothread=hints0"
#define VIRTIO_MEM_DEVICE \
    " -device virtio-mem-pci,id=vmem0,addr=5,memdev=vmem,requested-size=0"
/* To end the name of another device and its properties with */
#define IO_DEVICE ",addr=6"

typedef struct VirtioDriver VirtioDriver;

/* A part of a request, in guest RAM */
typedef struct VirtioBuf {
    uint64_t addr;
    uint32_t len;
    bool fill;                  /* the device writes it */
} VirtioBuf;

/*
 * One of each for a VM.  A reset of the VM stops the devices, and ends the
 * drivers' use: free them then, or when the VM ends.
 */
VirtioDriver *balloon_start(VM *vm);
VirtioDriver *virtio_mem_start(VM *vm);
void virtio_free(VirtioDriver *driver);

/* Give pages to the balloon, take them back, report them as free */
void balloon_inflate(VirtioDriver *driver, uint64_t start, uint64_t len);
void balloon_deflate(VirtioDriver *driver, uint64_t start, uint64_t len);
void balloon_report(VirtioDriver *driver, uint64_t start, uint64_t len);
/*
 * Wait until the migration that has begun asks for free pages; name these.
 * Only for HINTING_BALLOON_DEVICE.
 */
void balloon_hint(VirtioDriver *driver, uint64_t start, uint64_t len);

/* The guest-physical address of the device's memory, and its block size */
uint64_t virtio_mem_start_address(VirtioDriver *driver);
uint64_t virtio_mem_block_size(VirtioDriver *driver);
/* How much of it the guest has, and should have */
uint64_t virtio_mem_plugged(VirtioDriver *driver);
uint64_t virtio_mem_requested(VirtioDriver *driver);
void virtio_mem_request(VM *vm, uint64_t size);

/* Ask for blocks, give them back; the device must agree */
void virtio_mem_plug(VirtioDriver *driver, uint64_t start, uint64_t len);
void virtio_mem_unplug(VirtioDriver *driver, uint64_t start, uint64_t len);
/* ... or not agree: false */
bool virtio_mem_try(VirtioDriver *driver, bool plug, uint64_t start,
                    uint64_t len);
void virtio_mem_unplug_all(VirtioDriver *driver);

/* The IO_DEVICE, without any feature but that it is modern */
VirtioDriver *virtio_io_start(VM *vm, int queues);
/* After migration the guest, and so its driver, is in this VM */
void virtio_io_move(VirtioDriver *driver, VM *vm);
/* Guest RAM for headers and the like, until virtio_free() */
uint64_t virtio_alloc(VirtioDriver *driver, size_t len);

/* Give a queue a request, of which it can have one at a time */
void virtio_submit(VirtioDriver *driver, int queue, const VirtioBuf *bufs,
                   int n);
/* Is it done, and so the queue free again? */
bool virtio_poll(VirtioDriver *driver, int queue);
void virtio_wait(VirtioDriver *driver, int queue);

#endif
