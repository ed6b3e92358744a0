# SPDX-License-Identifier: GPL-2.0-or-later
"""A PCI device of the host that is given to a guest: "edu", which copies memory by DMA."""

import socket
import time
from pathlib import Path

from vm import check

DEVICES = Path('/sys/bus/pci/devices')
EDU = 0x11e81234
# Where the guest gets it; and where nobody minds, between RAM and the interrupt controllers
SLOT, BAR = 8, 0xfe000000
QTEST = '/tmp/qtest'


def find():
    """Its address on the host, where the driver for user space has it from now on."""
    for device in DEVICES.iterdir():
        ids = [int((device / file).read_text(), 16) for file in ('device', 'vendor')]
        if ids == [EDU >> 16, EDU & 0xffff]:
            (device / 'driver_override').write_text('vfio-pci')
            if not (device / 'driver').exists():
                Path('/sys/bus/pci/drivers_probe').write_text(device.name)
            return device.name
    raise AssertionError('the host has no edu')


def options():
    """Of a VM that has the device, and whose bus we can be the driver on."""
    return ['-device', f'vfio-pci,host={find()},addr={SLOT:#x}',
            '-chardev', f'socket,id=qtest,path={QTEST},server=on,wait=off',
            '-qtest', 'chardev:qtest']


class Edu:
    """The device, as the guest has it (docs/specs/edu.rst in QEMU's source)."""

    SOURCE, TARGET, LENGTH, COMMAND = (BAR + r for r in (0x80, 0x88, 0x90, 0x98))
    BUFFER, SIZE = 0x40000, 4096
    RUN, TO_RAM = 1, 2

    def __init__(self):
        self.qtest = socket.socket(socket.AF_UNIX)
        self.qtest.settimeout(100)
        self.qtest.connect(QTEST)
        self.lines = self.qtest.makefile('r')
        check(self.config(0) == EDU, f'device {self.config(0):#x}')
        self.config(0x10, BAR)
        self.config(0x04, 6)            # answers to addresses, and may use memory

    def say(self, command):
        self.qtest.sendall(command.encode() + b'\n')
        status, *value = self.lines.readline().split()
        check(status == 'OK', command, status, *value)
        return int(value[0], 0) if value else None

    def config(self, register, value=None):
        self.say(f'outl 0xcf8 {1 << 31 | SLOT << 11 | register:#x}')
        return self.say('inl 0xcfc' if value is None else f'outl 0xcfc {value:#x}')

    def _copy(self, source, target, command):
        for register, value in ((self.SOURCE, source), (self.TARGET, target),
                                (self.LENGTH, self.SIZE), (self.COMMAND, command | self.RUN)):
            self.say(f'writeq {register:#x} {value:#x}')
        end = time.monotonic() + 100
        while self.say(f'readq {self.COMMAND:#x}') & self.RUN:
            check(time.monotonic() < end, 'the device copies for ever')
            time.sleep(0.05)

    def copy(self, source, target):
        """A page of guest RAM, by way of the device."""
        self._copy(source, self.BUFFER, 0)
        self._copy(self.BUFFER, target, self.TO_RAM)
