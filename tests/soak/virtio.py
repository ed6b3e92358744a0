# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver for one queue of a virtio device, which works from the host, through qtest.

Each driver starts the device anew, so it does not matter where the guest has been since.
The names are those of the virtio standard, where 4.1 is about PCI.
"""

import struct

BAR_AT = 0xe0000000                     # where nothing else is; a MiB for each device
RINGS = 8 << 20                         # guest RAM that is used for nothing else, as well
AVAILABLE_AT, USED_AT = 1024, 2048      # in a page of it

PCI_COMMAND, PCI_BAR0, PCI_CAPABILITIES = 0x04, 0x10, 0x34
MEMORY_AND_DMA = 6
VENDOR_CAPABILITY = 9
COMMON, NOTIFY = 1, 2                   # kinds of capability

FEATURE_SELECT, FEATURE = 0, 4
DRIVER_FEATURE_SELECT, DRIVER_FEATURE = 8, 12
STATUS = 20
QUEUE_SIZE, QUEUE_ENABLE, NOTIFY_OFFSET = 24, 28, 30
DESCRIPTORS, AVAILABLE, USED = 32, 40, 48
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK = 1, 2, 4, 8

SIZE = 8                                # of the queue
NEXT, DEVICE_WRITES = 1, 2
NO_INTERRUPT = 1


class Virtio:
    """The device in a slot of the first PCI bus, by its QEMU's qtest connection."""

    def __init__(self, qtest, slot):
        self.qtest, self.slot = qtest, slot
        self.bar_at = BAR_AT + (slot << 20)
        self.rings = RINGS + (slot << 16)
        #: a page for what requests and answers are made of
        self.page = self.rings + 4096
        self.common = self.notify = None
        self.find()
        self.put('l', self.common + STATUS, 0)
        self.put('b', self.common + STATUS, ACKNOWLEDGE | DRIVER)
        for half in 0, 1:
            self.put('l', self.common + FEATURE_SELECT, half)
            offered = self.ask(f'readl {self.common + FEATURE}')
            # Of all devices' features only that it is a modern one
            self.put('l', self.common + DRIVER_FEATURE_SELECT, half)
            self.put('l', self.common + DRIVER_FEATURE, 1 if half else offered & 0xffffff)
        self.put('b', self.common + STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        self.write(self.rings, bytes(4096))
        self.write(self.rings + AVAILABLE_AT, struct.pack('<H', NO_INTERRUPT))
        self.put('w', self.common + QUEUE_SIZE, SIZE)
        for register, at in (DESCRIPTORS, 0), (AVAILABLE, AVAILABLE_AT), (USED, USED_AT):
            self.put('l', self.common + register, self.rings + at)
            self.put('l', self.common + register + 4, 0)
        self.put('w', self.common + QUEUE_ENABLE, 1)
        self.put('b', self.common + STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        self.requests = 0

    def ask(self, command):
        answer = self.qtest.cmd(command).split()
        if not answer or answer[0] != 'OK':
            raise ValueError(f'qtest was told "{command}" and says {answer}')
        return int(answer[1], 0) if len(answer) > 1 else None

    def put(self, width, address, value):
        self.ask(f'write{width} {address} {value}')

    def write(self, address, content):
        self.ask(f'write {address} {len(content)} 0x{content.hex()}')

    def config(self, register):
        self.ask(f'outl 0xcf8 {1 << 31 | self.slot << 11 | register & ~3}')
        return self.ask('inl 0xcfc') >> register % 4 * 8

    def set_config(self, register, value):
        self.ask(f'outl 0xcf8 {1 << 31 | self.slot << 11 | register}')
        self.ask(f'outl 0xcfc {value}')

    def find(self):
        at = self.config(PCI_CAPABILITIES) & 0xff
        while at:
            if self.config(at) & 0xff == VENDOR_CAPABILITY:
                kind, bar = self.config(at + 3) & 0xff, self.config(at + 4) & 0xff
                if kind in (COMMON, NOTIFY):
                    self.set_config(PCI_BAR0 + bar * 4, self.bar_at)
                    self.set_config(PCI_BAR0 + bar * 4 + 4, 0)
                    place = self.bar_at + self.config(at + 8)
                    if kind == COMMON:
                        self.common = place
                    else:
                        # The only queue is the first, so its multiplier does not matter
                        self.notify = place
            at = self.config(at + 1) & 0xff
        self.set_config(PCI_COMMAND, MEMORY_AND_DMA)

    def request(self, wait_until, *parts):
        """Have the device do what is in parts: (address, length, whether it writes there)."""
        for n, (address, length, writes) in enumerate(parts):
            flags = (DEVICE_WRITES if writes else 0) | (NEXT if n + 1 < len(parts) else 0)
            self.write(self.rings + 16 * n, struct.pack('<QIHH', address, length, flags, n + 1))
        # Each request is the chain of descriptors that begins with the first
        self.requests += 1
        self.put('w', self.rings + AVAILABLE_AT + 2, self.requests)
        self.put('w', self.notify, 0)
        wait_until(lambda: self.ask(f'readw {self.rings + USED_AT + 2}') == self.requests,
                   f'the virtio device in slot {self.slot}')
