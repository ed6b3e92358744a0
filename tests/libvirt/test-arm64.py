#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""contrib/libvirt/arm64.xml under a real libvirt, on an arm64 host.

usage: test-arm64.py BUILD [CASE...]
tests/nested emulates such a host: host.py aarch64-libvirt
"""

import os
import sys
from pathlib import Path

sys.dont_write_bytecode = True
TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / d) for d in ('tests/libvirt', 'tests/guest-memfd', 'scripts',
                                               'scripts/tests')]
import case
import entry
from case import GIB, LibvirtTest
from domain import MIB, payload

FLASH = 64 * MIB


def boot_payload(root):
    """Have our guest program, instead of UEFI, in the flash memory."""
    for name, content in ('loader', payload(case.BUILD).read_bytes()), ('nvram', b''):
        file = case.SCRATCH / f'{name}.fd'
        file.write_bytes(content)
        os.truncate(file, FLASH)
    root.find('os/loader').text = str(case.SCRATCH / 'loader.fd')
    root.find('os/nvram').set('template', str(case.SCRATCH / 'nvram.fd'))


class Arm64Test(LibvirtTest):
    """With libvirt's own settings: QEMU is not root, has a /dev of its own, and is in a sandbox."""
    conf = ''

    def test_example(self):
        guest = self.run_example('arm64', {'mach-virt.ram': GIB},
                                 ['memory-backend-memfd', 'guest-memfd=on'], boot_payload)
        status = dict(line.split(':', 1) for line in
                      Path(f'/proc/{guest.pid()}/status').read_text().splitlines())
        self.assertNotEqual(status['Uid'].split()[0], '0')
        self.assertEqual(status['Seccomp'].strip(), '2', 'in a sandbox: a filter of system calls')
        guest.virsh('managedsave')
        guest.virsh('start')
        guest.connect()
        guest.ask('check 1')
        self.assert_bound(guest, {'mach-virt.ram': GIB})


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.split('\n\n', maxsplit=1)[1])
    case.main(Path(sys.argv[1]).resolve(), sys.argv[2:])


if __name__ == '__main__':
    entry.run(main)
