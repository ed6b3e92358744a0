#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests on guest_memfd RAM under a real libvirt, as contrib/libvirt describes them.

usage: test-libvirt.py BUILD [CASE...]
"""

import configparser
import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

sys.dont_write_bytecode = True
TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / d) for d in ('tests/libvirt', 'tests/peers', 'tests/nested',
                                               'tests/guest-memfd', 'scripts', 'scripts/tests')]
import case
import daemon
import entry
import kvm
import run as peer_tests
from case import GIB, LibvirtTest, new_host
from daemon import VirshError, wait_for
from domain import CONTRIB, MIB, QEMU_NS, Domain, memory_options

TOP = CONTRIB.parent / 'guest-memfd/guest-memfd-top'
# Clear of the guest program and of what a PC has below 1 MiB
START, LENGTH = 64 * MIB, 256 * MIB


class ExampleTest(LibvirtTest):
    """Each file of contrib/libvirt."""

    def run_example(self, name, *args, **kwargs):
        self.assertEqual(validate(name), f'{CONTRIB}/{name}.xml validates')
        return super().run_example(name, *args, **kwargs)

    def test_object(self):
        self.run_example('object', {'ram0': GIB},
                         ['memory-backend-guest-memfd,id=ram0', 'memory-backend=ram0'])

    def test_machine(self):
        self.run_example('machine', {'pc.ram': GIB}, ['memory-backend-memfd', 'guest-memfd=on'])

    def test_numa(self):
        self.run_example('numa', {'ram-node0': GIB // 2, 'ram-node1': GIB // 2},
                         ['memdev=ram-node0', 'memdev=ram-node1', 'guest-memfd=on'])

    def test_hotplug(self):
        self.run_example('hotplug', {'ram-node0': GIB, 'memvirtiomem0': 512 * MIB},
                         ['maxmem=', 'memdev=ram-node0', 'virtio-mem-pci', 'guest-memfd=on'])

    def test_virtiofs(self):
        """virtiofsd is started and answers; that a guest uses it is tests/peers' business."""
        virtiofsd = case.SCRATCH / 'virtiofsd'
        virtiofsd.write_text(f'#!/bin/sh\nexec {VIRTIOFSD} "$@"\n')
        virtiofsd.chmod(0o755)

        def edit(root):
            root.find('devices/filesystem/binary').set('path', str(virtiofsd))
            root.find('devices/filesystem/source').set('dir', str(case.SCRATCH))
        guest = self.run_example('virtiofs', {'pc.ram': GIB}, ['guest-memfd=on'], edit)
        devices = [d['type'] for d in guest.qmp('qom-list', path='/machine/peripheral')]
        self.assertIn('child<vhost-user-fs-pci>', devices)
        pid, = [f.read_text() for f in self.host.top.glob('run/qemu/*-fs.pid')]
        self.assertIn('virtiofsd', Path(f'/proc/{int(pid)}/cmdline').read_text())


class WarningTest(LibvirtTest):
    def test_ordinary_memory_by_mistake(self):
        """Without <memoryBacking>, libvirt brings memory that is not shared."""
        guest = self.define('machine', lambda root: root.remove(root.find('memoryBacking')))
        guest.start()
        self.assertEqual(guest.qmp('query-guest-memfd'), [])
        log = (self.host.top / 'log/qemu/guest.log').read_text()
        self.assertIn("no effect on memory backend 'pc.ram'", log)


class LifeTest(LibvirtTest):
    """What libvirt does with a guest."""

    def setUp(self):
        super().setUp()
        self.guest = self.define('machine')
        self.guest.start()

    def fill(self, seed):
        self.guest.ask(f'fillr {START} {LENGTH} {seed}')

    def check(self, seed):
        self.guest.ask(f'checkr {START} {LENGTH} {seed}')

    def bound(self):
        self.assert_bound(self.guest, {'pc.ram': GIB})

    def test_suspend(self):
        self.fill(1)
        self.guest.virsh('suspend')
        self.assertEqual(self.guest.state(), 'paused')
        self.guest.virsh('resume')
        self.check(1)
        self.bound()

    def test_reset(self):
        self.fill(1)
        for reset in lambda: self.guest.virsh('reset'), lambda: self.guest.ask('reset'):
            reset()
            self.guest.wait_ready()
            self.bound()
            self.check(1)

    def test_managed_save(self):
        self.fill(2)
        first = self.guest.pid()
        self.guest.virsh('managedsave')
        self.assertEqual(self.guest.state(), 'shut off')
        self.guest.virsh('start')
        self.guest.connect()
        self.assertNotEqual(self.guest.pid(), first)
        self.check(2)
        self.bound()

    def test_save_to_file(self):
        """And back, by a name of the user's own"""
        self.fill(2)
        file = self.host.top / 'saved'
        self.guest.virsh('save', file)
        self.assertEqual(self.guest.state(), 'shut off')
        self.host.virsh('restore', file)
        self.guest.connect()
        self.check(2)
        self.bound()

    def test_edit(self):
        """To another size, which the next start has"""
        # What the user's editor does with the file
        edit = case.SCRATCH / 'editor'
        edit.write_text('#!/bin/sh\nexec sed -i "s,<memory .*,<memory unit=\'MiB\'>768</memory>,; '
                        '/<currentMemory/d" "$1"\n')
        edit.chmod(0o755)
        subprocess.run(self.host.command('edit', self.guest.name), check=True, timeout=900,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       env={**os.environ, 'VISUAL': str(edit)})
        self.guest.virsh('destroy')
        self.assertEqual(int(self.guest.start()['ram']), 768 * MIB)
        self.assert_bound(self.guest, {'pc.ram': 768 * MIB})

    def test_domstats(self):
        """Answered as for any guest; the memory of the guest alone is not in QEMU's rss"""
        self.fill(8)
        stats = dict(line.strip().split('=', 1)
                     for line in self.host.virsh('domstats', self.guest.name).splitlines()
                     if '=' in line)
        self.assertEqual(int(stats['balloon.current']), GIB >> 10)
        self.assertLess(int(stats['balloon.rss']) << 10, LENGTH)
        self.assertIn('vcpu.0.time', stats)

    def test_snapshot_with_memory(self):
        self.fill(3)
        self.guest.virsh('snapshot-create-as', 'before')
        self.bound()
        self.fill(4)
        self.guest.virsh('snapshot-revert', 'before')
        self.guest.connect()
        self.check(3)
        self.bound()
        self.guest.virsh('snapshot-delete', 'before')

    def test_live_snapshot_to_file(self):
        """The guest counts, in a few pages, while all of its memory is written to a file."""
        self.guest.ask(f'count {START} {64 << 10}')
        self.guest.virsh('snapshot-create-as', 'now', '--live', '--no-metadata', '--memspec',
                         f'file={self.host.top}/memory,snapshot=external', '--diskspec',
                         f'vda,snapshot=external,file={self.host.top}/overlay.qcow2')
        self.assertGreater((self.host.top / 'memory').stat().st_size, 0)
        self.assertGreater(int(self.guest.ask('stop')[len('passes='):]), 0)
        self.bound()

    def test_balloon(self):
        """libvirt asks; what a driver in the guest then gives is the qtests' business."""
        self.fill(5)
        self.guest.virsh('setmem', '512M', '--live')
        self.check(5)
        self.bound()

    def test_daemon_restarts(self):
        self.fill(6)
        self.host.stop('libvirtd')
        self.host.start('libvirtd')
        self.assertEqual(self.guest.state(), 'running')
        self.check(6)
        self.bound()

    def test_top(self):
        """guest-memfd-top finds those that run, and asks them through libvirt."""
        def ask():
            return json.loads(daemon.run(sys.executable, TOP, '--json', '--timeout', '600',
                                         '--libvirt', self.host.uri))['vms']
        self.fill(7)
        vm, = ask()
        self.assertEqual((vm['name'], vm['uuid'], vm['error']),
                         (self.guest.name, self.guest.virsh('domuuid'), None))
        backend, = self.guest.qmp('query-guest-memfd')
        del backend['slots']
        self.assertEqual(vm['backends'], [backend])
        self.assertGreaterEqual(vm['allocated'], LENGTH)
        self.guest.virsh('destroy')
        self.assertEqual(ask(), [])

    def test_destroy(self):
        pid = self.guest.pid()
        self.guest.virsh('destroy')
        self.assertEqual(self.guest.state(), 'shut off')
        self.assertFalse(Path(f'/proc/{pid}').exists())


class MigrationTest(LibvirtTest):
    def setUp(self):
        super().setUp()
        self.other = new_host()
        self.hosts.append(self.other)
        self.addCleanup(self.other.close)

    def start_migration(self, guest, other, *options):
        # Unsafe, as libvirt cannot see that both hosts have the same disk.
        command = guest.host.command('migrate', '--live', '--unsafe', *options, guest.name,
                                     other.uri, '--migrateuri', f'unix://{case.SCRATCH}/migration')
        migration = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     text=True)
        self.addCleanup(migration.communicate)
        self.addCleanup(migration.kill)
        return migration

    def wait_logging(self, guest, migration):
        wait_for(lambda: migration.poll() is not None or guest.logged(), 'dirty logging')
        if migration.poll() is not None:
            self.fail(migration.communicate())

    def arrive(self, guest, there, migration):
        """The guest on its new host."""
        said = migration.communicate(timeout=900)
        self.assertEqual(migration.returncode, 0, said)
        self.assertEqual(guest.host.virsh('list', '--all', '--name'), '')
        guest.disconnect()
        guest = Domain(there)
        self.addCleanup(guest.remove)
        guest.connect()
        return guest

    def test_there_and_back(self):
        guest = self.define('machine')
        guest.start()
        guest.ask('smp 2')
        for there in self.other, self.host:
            guest.ask(f'count {START} {64 * MIB}')
            guest.virsh('migrate-setspeed', '100')
            migration = self.start_migration(guest, there, '--persistent', '--undefinesource')
            self.wait_logging(guest, migration)
            guest.virsh('migrate-setspeed', '10000')
            guest.virsh('migrate-setmaxdowntime', '60000')
            guest = self.arrive(guest, there, migration)
            self.assertGreater(int(guest.ask('stop')[len('passes='):]), 0)
            self.assert_bound(guest, {'pc.ram': GIB})

    def test_from_ordinary_memory(self):
        """A guest on a memfd that runs moves to a guest_memfd by the XML of its new host."""
        def remove_commandline(root):
            commandline.append(root.find(f'{{{QEMU_NS}}}commandline'))
            root.remove(commandline[0])
        commandline = []
        guest = self.define('machine', remove_commandline)
        guest.start()
        self.assertEqual(guest.qmp('query-guest-memfd'), [])
        guest.ask(f'fillr {START} {LENGTH} 1')
        root = ET.fromstring(guest.virsh('dumpxml', '--migratable'))
        root.append(commandline[0])
        new = self.host.top / 'new.xml'
        new.write_text(ET.tostring(root, encoding='unicode'))
        migration = self.start_migration(guest, self.other, '--persistent', '--undefinesource',
                                         '--xml', new, '--persistent-xml', new)
        guest = self.arrive(guest, self.other, migration)
        guest.ask(f'checkr {START} {LENGTH} 1')
        self.assert_bound(guest, {'pc.ram': GIB})

    def test_abort(self):
        guest = self.define('machine')
        guest.start()
        guest.ask(f'count {START} {64 * MIB}')
        guest.virsh('migrate-setspeed', '1')
        migration = self.start_migration(guest, self.other)
        self.wait_logging(guest, migration)
        guest.virsh('domjobabort')
        migration.communicate(timeout=900)
        self.assertNotEqual(migration.returncode, 0)
        self.assertEqual(self.other.virsh('list', '--all', '--name'), '')
        self.assert_bound(guest, {'pc.ram': GIB})
        self.assertGreater(int(guest.ask('stop')[len('passes='):]), 0)

    def test_postcopy_is_refused(self):
        guest = self.define('machine')
        guest.start()
        migration = self.start_migration(guest, self.other, '--postcopy')
        said = migration.communicate(timeout=900)[1]
        self.assertIn('guest_memfd', said)
        self.assert_bound(guest, {'pc.ram': GIB})


class HotplugTest(LibvirtTest):
    BOOT = {'ram-node0': GIB, 'memvirtiomem0': 512 * MIB}
    # ACPI's registers of memory devices: which one, and what there is to do or is to be done
    SELECT, CONTROL, REMOVING, EJECT = 0xa00, 0xa14, 4, 8

    def setUp(self):
        super().setUp()
        self.guest = self.define('hotplug')
        self.guest.start()
        self.assert_bound(self.guest, self.BOOT)

    def memory_devices(self, kind):
        return [d['data'] for d in self.guest.qmp('query-memory-devices') if d['type'] == kind]

    def test_dimm(self):
        dimm = CONTRIB / 'dimm.xml'
        self.guest.ask(f'fillr {START} {LENGTH} 1')
        for seed in 2, 3:
            self.guest.virsh('attach-device', dimm, '--live')
            self.assert_bound(self.guest, {**self.BOOT, 'memdimm0': 256 * MIB})
            device, = self.memory_devices('dimm')
            where = f'{device["addr"]} {device["size"]}'
            # None of what the last one had.
            self.guest.ask(f'zero {where}')
            self.guest.ask(f'fillr {where} {seed}')
            self.guest.ask(f'checkr {where} {seed}')
            self.unplug(dimm, device['slot'])
            self.assert_bound(self.guest, self.BOOT)
        self.guest.ask(f'checkr {START} {LENGTH} 1')

    def unplug(self, dimm, slot):
        """libvirt asks the guest, which agrees as an operating system would."""
        self.guest.virsh('detach-device', dimm, '--live')
        self.guest.ask(f'outb {self.SELECT} {slot}')
        wait_for(lambda: int(self.guest.ask(f'inb {self.CONTROL}'), 0) & self.REMOVING,
                 'the guest is asked to give the DIMM back')
        self.guest.ask(f'outb {self.CONTROL} {self.EJECT}')
        wait_for(lambda: "model='dimm'" not in self.guest.virsh('dumpxml'), 'libvirt knows')

    def test_virtio_mem(self):
        """libvirt asks; what a driver in the guest then takes is the qtests' business."""
        self.guest.virsh('update-memory-device', '--live', '--requested-size', '256M')
        device, = self.memory_devices('virtio-mem')
        self.assertEqual(device['requested-size'], 256 * MIB)
        self.assertIn("<requested unit='KiB'>262144</requested>", self.guest.virsh('dumpxml'))
        self.guest.ask('fill 1')
        self.guest.ask('check 1')
        self.assert_bound(self.guest, self.BOOT)


class SettingsTest(LibvirtTest):
    """libvirt's own settings: QEMU is not root, and has a /dev of its own."""
    conf = ''

    def test_defaults(self):
        guest = self.define('machine')
        guest.start()
        pid = guest.pid()
        self.assertNotEqual(os.stat(f'/proc/{pid}').st_uid, 0)
        self.assertNotEqual(*(os.readlink(f'/proc/{p}/ns/mnt') for p in
                              (pid, self.host.processes['libvirtd'].pid)))
        guest.ask('fill 1')
        guest.ask('check 1')
        self.assert_bound(guest, {'pc.ram': GIB})
        guest.virsh('managedsave')
        guest.virsh('start')
        guest.connect()
        guest.ask('check 1')
        self.assert_bound(guest, {'pc.ram': GIB})


class ProbeTest(LibvirtTest):
    """libvirt asks an emulator what it can do, and again when it is another."""

    def test_emulator_is_probed_again(self):
        emulator = case.SCRATCH / 'qemu-system-x86_64'
        known = []
        for _ in range(2):
            shutil.copy(case.BUILD / 'bin' / emulator.name, emulator)
            capabilities = ET.fromstring(self.host.virsh('domcapabilities', '--virttype', 'kvm',
                                                         '--emulatorbin', emulator))
            self.assertEqual(capabilities.findtext('path'), str(emulator))
            backing = capabilities.find('memoryBacking')
            self.assertEqual(backing.get('supported'), 'yes')
            self.assertIn('memfd', [v.text for v in backing.iter('value')])
            known.append({ET.parse(f).findtext('qemuctime') for f in
                          self.host.top.glob('cache/qemu/capabilities/*.xml')})
            self.assertIn(str(int(emulator.stat().st_ctime)), known[-1])
            time.sleep(1.1)             # libvirt counts in seconds
        self.assertNotEqual(*known)


class Arm64Test(LibvirtTest):
    """As far as a host that is no arm64 goes: libvirt's command line, and QEMU's refusal."""

    @staticmethod
    def for_tcg(root):
        root.set('type', 'qemu')
        root.find('cpu').set('mode', 'maximum')

    def test_command_line_and_refusal(self):
        self.assertEqual(validate('arm64'), f'{CONTRIB}/arm64.xml validates')
        guest = self.define('arm64', edit=self.for_tcg)
        native = memory_options(guest.native())
        self.assertIn(('-machine', 'guest-memfd=on'), native)
        self.assertTrue(any('memory-backend-memfd' in value and '"share":true' in value
                            for _, value in native), native)
        with self.assertRaisesRegex(VirshError, 'guest_memfd needs KVM'):
            guest.virsh('start')


def validate(name):
    return subprocess.run(['virt-xml-validate', CONTRIB / f'{name}.xml', 'domain'], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
                          ).stdout.strip()


def unpack_virtiofsd(build):
    """The command of the one that tests/peers uses."""
    peers = configparser.ConfigParser()
    peers.read(TESTS / 'peers/peers')
    peer = peers['virtiofsd']
    peer['command'] = peer['command'].split()[0]
    return peer_tests.command(build, peer)


def main():
    global VIRTIOFSD
    if len(sys.argv) < 2:
        sys.exit(__doc__.split('\n\n', maxsplit=1)[1])
    build = Path(sys.argv[1]).resolve()
    # There is no network where the tests run.
    VIRTIOFSD = unpack_virtiofsd(build)
    kvm.ensure(build, 'libvirt-guests')
    case.main(build, sys.argv[2:], ('virt-xml-validate',))


VIRTIOFSD = None

if __name__ == '__main__':
    entry.run(main)
