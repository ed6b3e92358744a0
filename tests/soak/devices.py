# SPDX-License-Identifier: GPL-2.0-or-later
"""What the devices of a guest do with its memory: give it back, take it, write it."""

import array
import contextlib
import struct
import sys

from guest import (BACKEND_SLOT, DIMM_LEN, MIB, RAM, VMEM_LEN, VMEM_SLOT, VMEM_START, Lost,
                   wait_until)
from virtio import Virtio

BALLOON, BALLOON_LEN = 56 * MIB, 8 * MIB

# virtio standard 5.15.6: a request has a type, an address and a number of blocks
VMEM_BLOCK = 2 * MIB
PLUG, UNPLUG = 0, 1
VMEM_REQUEST, VMEM_RESPONSE = struct.Struct('<HxxxxxxQHxxxxxx'), 10

# ... 5.2.6: a type and a sector, then the data, then the status
READ, READ_LEN, READ_SEED = 72 * MIB, 2 * MIB, 1
DISK_REQUEST = struct.Struct('<IxxxxQ')
DISK_IN = 0
CHUNK, SECTOR = 256 << 10, 512


def pattern(start, length, seed):
    """What the guest's checkr wants there (tests/guest-memfd/pattern.h)."""
    words = array.array('Q', ((address + seed * 0xd1342543de82ef95) * 0x9e3779b97f4a7c15
                              & (1 << 64) - 1 for address in range(start, start + length, 8)))
    if sys.byteorder == 'big':
        words.byteswap()
    return words.tobytes()


class Devices:
    """Operations of Machine, which has a qemu, and says what its memory holds: parts."""

    def do_balloon(self):
        """Give a part of memory to the host, or take it again."""
        self.verify()
        inflate = self.parts.get(BALLOON, (0, 0))[1] is not None
        # What a balloon can have is RAM and DIMMs
        total = RAM + DIMM_LEN * len(self.dimms())
        self.qemu.cmd('balloon', value=total - inflate * BALLOON_LEN)
        answer = self.qemu.ask(f'balloon {BALLOON}')
        if int(answer.split()[0].removeprefix('pages=')) != inflate * BALLOON_LEN // 4096:
            raise Lost(f'the balloon is {answer}')
        if inflate:
            self.parts[BALLOON] = BALLOON_LEN, None
        else:
            self.fill(BALLOON, BALLOON_LEN)

    def do_virtio_mem(self):
        """Plug a block, or unplug it."""
        self.verify()
        block = VMEM_START + self.rng.randrange(VMEM_LEN // VMEM_BLOCK) * VMEM_BLOCK
        plugged = sum(start >= VMEM_START for start in self.parts)
        plug = block not in self.parts
        self.qemu.cmd('qom-set', path='/machine/peripheral/vmem0', property='requested-size',
                      value=(plugged + (1 if plug else -1)) * VMEM_BLOCK)
        with contextlib.closing(self.qemu.qtest()) as qtest:
            device = Virtio(qtest, VMEM_SLOT)
            answer = device.page + VMEM_REQUEST.size
            device.write(device.page, VMEM_REQUEST.pack(PLUG if plug else UNPLUG, block, 1))
            device.put('w', answer, 0xffff)
            device.request(wait_until, (device.page, VMEM_REQUEST.size, False),
                           (answer, VMEM_RESPONSE, True))
            answer = device.ask(f'readw {answer}')
        if answer:
            raise Lost(f'virtio-mem says {answer} to {plug=} {block:#x}')
        if plug:
            self.fill(block, VMEM_BLOCK)
        else:
            del self.parts[block]

    def do_vhost_user(self):
        """A process outside QEMU writes memory; half of the time it dies, and another comes."""
        self.verify()
        if self.rng.random() < .5:
            self.qemu.end_backend()
            wait_until(lambda: not self.qemu.backend_is_there(), 'a back end is missed')
            self.qemu.cmd('query-guest-memfd')
            self.qemu.start_backend()
            wait_until(self.qemu.backend_is_there, 'a back end comes back')
            self.count['back ends that died'] += 1
        self.fill(READ, READ_LEN)
        with contextlib.closing(self.qemu.qtest()) as qtest:
            device = Virtio(qtest, BACKEND_SLOT)
            status = device.page + DISK_REQUEST.size
            for at in range(0, READ_LEN, CHUNK):
                device.write(device.page, DISK_REQUEST.pack(DISK_IN, at // SECTOR))
                device.put('b', status, 0xff)
                device.request(wait_until, (device.page, DISK_REQUEST.size, False),
                               (READ + at, CHUNK, True), (status, 1, True))
                if device.ask(f'readb {status}'):
                    raise Lost(f'the vhost-user disk cannot be read at {at}')
        self.parts[READ] = READ_LEN, READ_SEED
