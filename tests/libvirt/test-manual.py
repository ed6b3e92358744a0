#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Type what the manual's pages about libvirt tell their reader to type.

usage: test-manual.py BUILD [CASE...]
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

sys.dont_write_bytecode = True
TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / d) for d in ('tests/libvirt', 'tests/nested', 'tests/guest-memfd',
                                       'scripts', 'scripts/tests')]
import case
import daemon
import entry
import kvm
from case import GIB, LibvirtTest, new_host
from domain import QEMU_NS, Domain, adapt, example

TOOLS = ('guest-memfd-host-check', 'guest-memfd-top')
PAGES = [TOP / 'docs' / page for page in ('system/guest-memfd-libvirt.rst',
                                          'tools/guest-memfd-top.rst')]
OTHER_HOST = 'qemu+ssh://host2/system'


class ManualTest(LibvirtTest):
    """Word for word, but for names of hosts and paths."""
    # tests/packages has SELinux
    ELSEWHERE = {'semanage', 'restorecon'}

    @classmethod
    def setUpClass(cls):
        # virt-install asks libvirt for emulators that it knows
        cls.host = new_host(programs=case.BUILD / 'bin')
        cls.hosts = [cls.host]
        text = ''.join(page.read_text(encoding='utf-8') for page in PAGES).replace('\\\n', ' ')
        cls.lines = re.findall(r'^ +((?:sudo|guest-memfd-|virsh|virt-|semanage|restorecon).* .*)',
                               text, re.MULTILINE)
        cls.typed = set()
        cls.tools = case.SCRATCH / 'tools'
        cls.tools.mkdir(exist_ok=True)
        for tool in TOOLS:
            shutil.copy(TOP / 'contrib/guest-memfd' / tool, cls.tools)
        # libvirt's user may use KVM, by a group, as on a host with udev
        sudo = cls.tools / 'sudo'
        node = cls.host.top / 'kvm'
        sudo.write_text(f'#!/bin/sh\ntest "$1 $2" = "-u {daemon.USER}" || exit\nshift 2\n'
                        f"exec unshare --mount sh -ec 'mount --bind {node} /dev/kvm\n"
                        f'exec setpriv --reuid {daemon.ID} --regid {node.stat().st_gid} '
                        """--clear-groups "$@"' sh "$@"\n""")
        sudo.chmod(0o755)

    def type(self, start, more='', leave_out=()):
        """Type the commands that start like this (a regular expression), and some words more or
        less; what they print.
        """
        lines = [line for line in self.lines if re.match(start, line)]
        self.assertTrue(lines, start)
        self.typed.update(lines)
        said = ''
        for line in lines:
            words = [w for w in shlex.split(line.replace('/usr/local/bin', str(case.BUILD / 'bin')))
                     if not w.startswith(tuple(leave_out))]
            # The shell has its own words
            line = shlex.join(words).replace("'>new.xml'", '>new.xml').replace("'|'", '|')
            result = subprocess.run(
                ['sh', '-ec', f'{line} {more}'], text=True, cwd=case.SCRATCH, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                timeout=900, env={**os.environ, 'LIBVIRT_DEFAULT_URI': self.host.uri,
                                  'PATH': f'{self.tools}:{os.environ["PATH"]}'})
            self.assertEqual(result.returncode, 0, (line, result.stdout, result.stderr))
            said += result.stdout
        return said

    def guest(self, xml):
        """A guest that has been defined, or is to be."""
        root = ET.fromstring(xml)
        adapt(root, case.BUILD)
        domain = Domain(self.host, ET.tostring(root, encoding='unicode'))
        self.addCleanup(domain.remove)
        return domain

    def install(self, leave_out=()):
        """The XML that virt-install makes."""
        return self.type('virt-install', '--print-xml', leave_out)

    def test_1_new_guest(self):
        self.assertIn('guest_memfd RAM works on this host: bound', self.type('sudo '))
        self.assertIn('<domainCapabilities>', self.type('virsh domcapabilities'))
        xml = case.SCRATCH / 'guest.xml'
        xml.write_text(example('machine', case.BUILD))
        self.type('virt-xml-validate')
        self.type('virsh define')
        self.addCleanup(Domain(self.host).remove)
        self.type('virsh start')
        self.assertRegex(self.type('virsh qemu-monitor-command'), r'\bpc.ram: .* bound')
        self.assertIn('guest', self.type('guest-memfd-top --libvirt', '--once'))
        self.assertGreater(int(self.type('guest-memfd-top --json')), 0)

    def test_2_virt_install(self):
        guest = self.guest(self.install())
        self.assertEqual(int(guest.start()['ram']), GIB)
        self.assert_bound(guest, {'pc.ram': GIB})

    def test_3_virt_xml(self):
        guest = self.guest(self.install(['--memorybacking', 'source.type', '--qemu-commandline']))
        guest.start()
        self.assertEqual(guest.qmp('query-guest-memfd'), [])
        guest.virsh('destroy')
        self.type('virt-xml ')
        guest.start()
        self.assert_bound(guest, {'pc.ram': GIB})

    def test_4_migration(self):
        """As it is; and to memory of another kind, with the edits of new.xml"""
        guest = self.guest(self.install())
        guest.start()
        self.migrate(guest, r'virsh migrate --live --persistent --undefinesource guest ')
        guest = self.guest(self.install(['--qemu-commandline']))
        guest.start()
        self.assertEqual(guest.qmp('query-guest-memfd'), [])
        self.type('virsh dumpxml')
        file = case.SCRATCH / 'new.xml'
        root = ET.fromstring(file.read_text())
        arguments = ET.SubElement(root, f'{{{QEMU_NS}}}commandline')
        for word in '-machine', 'guest-memfd=on':
            ET.SubElement(arguments, f'{{{QEMU_NS}}}arg', value=word)
        file.write_text(ET.tostring(root, encoding='unicode'))
        self.migrate(guest, 'virsh migrate .* --xml')

    def migrate(self, guest, line):
        """To another host, where it ends."""
        other = new_host()
        self.hosts.append(other)
        self.addCleanup(other.close)
        # Unsafe, as libvirt cannot see that both hosts have the same disk
        self.type(line, f'--unsafe --migrateuri unix://{case.SCRATCH}/migration '
                  f'--desturi {other.uri}', [OTHER_HOST])
        guest.disconnect()
        there = Domain(other)
        there.connect()
        self.assert_bound(there, {'pc.ram': GIB})
        there.remove()

    def test_5_all_were_typed(self):
        left = {line for line in self.lines if line.split()[0] not in self.ELSEWHERE}
        self.assertEqual(left - self.typed, set())


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.split('\n\n', maxsplit=1)[1])
    build = Path(sys.argv[1]).resolve()
    kvm.ensure(build, 'libvirt-manual')
    case.main(build, sys.argv[2:], ('virt-xml-validate', 'virt-install', 'virt-xml', 'jq'))


if __name__ == '__main__':
    entry.run(main)
