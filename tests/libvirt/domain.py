# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains from contrib/libvirt, with our guest program in place of firmware and system."""

import json
import os
import re
import shlex
import tty
import xml.etree.ElementTree as ET
from pathlib import Path

from console import Console

CONTRIB = Path(__file__).resolve().parents[2] / 'contrib/libvirt'
IMAGE = '/var/lib/libvirt/images/guest.qcow2'
QEMU_NS = 'http://libvirt.org/schemas/domain/qemu/1.0'
ET.register_namespace('qemu', QEMU_NS)
# What a PC may hide of its RAM behind VGA and ROMs
HIDDEN = 384 << 10
MIB = 1 << 20


def example(name, build, edit=None):
    """The text of contrib/libvirt/NAME.xml, adapted; `edit` may change the tree further."""
    root = ET.parse(CONTRIB / f'{name}.xml').getroot()
    adapt(root, build)
    if edit:
        edit(root)
    return ET.tostring(root, encoding='unicode')


def programs(build):
    """The directory of what was built for this architecture, by a cross compiler or not."""
    cross = build / f'qemu-{os.uname().machine}'
    return cross if cross.exists() else build / 'qemu'


def payload(build):
    return programs(build) / f'tests/guest-memfd/payload-{os.uname().machine}.bin'


def adapt(root, build):
    """Change a domain to what this machine has and runs:

    - the emulator that was just built;
    - our guest program as firmware, instead of what boots from the disk (a PC; test-arm64.py);
    - not the one CPU feature that KVM here may offer and then refuse.

    All else stays as it is.
    """
    emulator = root.find('devices/emulator')
    emulator.text = str(programs(build) / Path(emulator.text).name)
    if root.find('os/type').get('arch') == 'x86_64':
        loader = ET.SubElement(root.find('os'), 'loader', type='rom')
        loader.text = str(payload(build))
        ET.SubElement(root.find('cpu'), 'feature', policy='disable', name='arch-capabilities')


def memory_options(argv):
    """Of a QEMU's command line, what says which memory the guest has."""
    pairs = list(zip(argv, argv[1:]))
    return [(option, value) for option, value in pairs
            if option in ('-m', '-machine', '-numa', '-overcommit')
            or (option in ('-object', '-device') and 'mem' in value)]


class Domain(Console):
    """A guest on a host, and our line to it."""

    def __init__(self, host, xml=None, name='guest'):
        self.host = host
        self.name = name
        self.tty = None
        if xml:
            self.file = host.top / 'domain.xml'
            self.file.write_text(xml)
            self.virsh_file('define')

    def virsh(self, command, *args):
        return self.host.virsh(command, self.name, *args)

    def virsh_file(self, command, *args):
        return self.host.virsh(command, *args, self.file)

    # Its life

    def start(self):
        """Start it, stopped until somebody listens to its serial line."""
        self.virsh('start', '--paused')
        self.connect()
        self.virsh('resume')
        return self.wait_ready()

    def connect(self):
        self.disconnect()
        self.tty = os.open(self.virsh('ttyconsole'), os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.tty)

    def disconnect(self):
        if self.tty is not None:
            os.close(self.tty)
        self.tty, self.unread = None, b''

    def remove(self):
        """Whatever its state, end it and forget it."""
        self.disconnect()
        if self.name not in self.host.virsh('list', '--all', '--name').split():
            return
        if self.state() != 'shut off':
            self.virsh('destroy')
        self.virsh('undefine', '--managed-save', '--snapshots-metadata', '--nvram')

    def state(self):
        return self.virsh('domstate')

    def fileno(self):
        return self.tty

    # What the host sees

    def qmp(self, command, **arguments):
        text = json.dumps({'execute': command, 'arguments': arguments})
        return json.loads(self.virsh('qemu-monitor-command', text))['return']

    def slots(self):
        return [s for b in self.qmp('query-guest-memfd') for s in b['slots']]

    def states(self):
        return {s['state'] for s in self.slots()}

    def logged(self):
        return 'dirty-log' in self.states() and 'bound' not in self.states()

    def pid(self):
        return int((self.host.top / f'run/qemu/{self.name}.pid').read_text())

    def command_line(self):
        return Path(f'/proc/{self.pid()}/cmdline').read_bytes().decode().split('\0')[:-1]

    def native(self):
        """What libvirt would start, without its environment."""
        words = shlex.split(self.virsh_file('domxml-to-native', 'qemu-argv'))
        return words[next(n for n, word in enumerate(words) if '=' not in word):]

    def mapped(self):
        """Bytes of guest_memfd in the address space of QEMU."""
        return sum(int(end, 16) - int(start, 16) for start, end in re.findall(
            r'^(\w+)-(\w+) .*\[kvm-gmem\]', Path(f'/proc/{self.pid()}/maps').read_text(), re.M))

    def resident(self):
        """Bytes of files and shared memory that QEMU has page tables for."""
        status = Path(f'/proc/{self.pid()}/status').read_text()
        return sum(int(kib) << 10 for kib in re.findall(r'^Rss(?:File|Shmem):\s+(\d+)', status,
                                                        re.M))
