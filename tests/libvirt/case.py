# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests under a real libvirt have: a host, domains, and what holds of their memory."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import daemon
import tap
from daemon import Host, wait_for
from domain import (CONTRIB, HIDDEN, IMAGE, MIB, Domain, example, memory_options, programs)

GIB = 1 << 30
# The directories of the build, and of all that the tests write: main() sets them.
BUILD = SCRATCH = None


class LibvirtTest(unittest.TestCase):
    conf = daemon.PLAIN_CONF

    @classmethod
    def setUpClass(cls):
        cls.host = new_host(cls.conf)
        cls.hosts = [cls.host]

    @classmethod
    def tearDownClass(cls):
        cls.host.close()

    def run(self, result=None):
        """As always; and what libvirt and QEMU have said when it fails."""
        before = len(result.errors + result.failures)
        super().run(result)
        if len(result.errors + result.failures) > before:
            print(*(host.logs() for host in self.hosts), file=sys.stderr)

    def define(self, name, edit=None):
        domain = Domain(self.host, example(name, BUILD, edit))
        self.addCleanup(domain.remove)
        return domain

    def assert_bound(self, domain, backends):
        """These backends {id: size}, and no others, are guest_memfds, and they are bound."""
        # What was logged is bound again in steps
        wait_for(lambda: not domain.states() & {'switching', 'dirty-log'}, 'the end of a log')
        found = {b['id']: b for b in domain.qmp('query-guest-memfd')}
        self.assertEqual({name: b['size'] for name, b in found.items()}, backends)
        # The others are those of System Management Mode, where KVM has it.
        self.assertLessEqual(domain.states(), {'bound', 'alias', 'address-space'}, found)
        total = sum(b['bound'] for b in found.values())
        self.assertGreaterEqual(total, sum(backends.values()) - HIDDEN, found)
        # The mapping of what has just been unplugged may stay for a moment.
        wait_for(lambda: domain.mapped() == sum(backends.values()), 'all that, and no more, mapped')

    def run_example(self, name, backends, natives, edit=None):
        """From the text of contrib/libvirt/NAME.xml to a guest that has used its memory."""
        domain = self.define(name, edit)
        native = memory_options(domain.native())
        for part in natives:
            self.assertTrue(any(part in ' '.join(pair) for pair in native), (part, native))
        greeting = domain.start()
        self.assertEqual(int(greeting['cpus']), 2)
        self.assertEqual(int(greeting['ram']), GIB)
        self.assertEqual(memory_options(domain.command_line()), native)
        self.assert_bound(domain, backends)
        domain.ask('smp 2')
        tested = int(domain.ask('fill 1'))
        self.assertGreater(tested, GIB - 2 * MIB)
        self.assertEqual(int(domain.ask('check 1')), tested)
        # The guest has used all of its memory, of which QEMU has no page tables.
        self.assertLess(domain.resident(), GIB / 4)
        self.assert_bound(domain, backends)
        return domain


def new_host(conf=daemon.PLAIN_CONF, programs=''):
    return Host(Path(tempfile.mkdtemp(dir=SCRATCH)), SCRATCH, conf, programs)


def main(build, cases, tools=()):
    """Run the cases whose names contain one of these, or all, with this build.

    @tools: further programs that the cases start
    """
    global BUILD, SCRATCH
    reason = daemon.reason_not_to(tools)
    if reason:
        print(f'1..0 # SKIP {reason}')
        return
    SCRATCH = daemon.enter()
    # QEMU's user need not be able to enter the directories above.
    BUILD = SCRATCH / 'build'
    BUILD.mkdir()
    daemon.run('mount', '--bind', build, BUILD)
    daemon.run(programs(BUILD) / 'qemu-img', 'create', '-q', '-f', 'qcow2',
               SCRATCH / Path(IMAGE).name, '64M')
    if cases:
        unittest.defaultTestLoader.testNamePatterns = [f'*{case}*' for case in cases]
    tap.main()
