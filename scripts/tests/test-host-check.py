#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test guest-memfd-host-check, on a host and on what it can be made to look like.

usage: test-host-check.py BUILD
BUILD's libguest-memfd-fault.so (tests/guest-memfd/fault.c) makes the kernel refuse. Where
this machine's KVM is none to show anything on, the host is an emulated one.
"""

import ctypes
import fcntl
import importlib.machinery
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.dont_write_bytecode = True
sys.path[:0] = [str(Path(__file__).resolve().parents[n] / d)
                for n, d in ((0, '.'), (2, 'tests/nested'))]
import kvm
import tap

TOOL = Path(__file__).resolve().parents[2] / 'contrib/guest-memfd/guest-memfd-host-check'
if len(sys.argv) != 2:
    sys.exit(__doc__.split('\n\n', maxsplit=1)[1])
BUILD = Path(sys.argv[1]).resolve()
LIBRARY = str(BUILD / 'qemu/tests/guest-memfd/libguest-memfd-fault.so')
KVM_CHECK_EXTENSION = 0xae03
KVM_CAP_GUEST_MEMFD_FLAGS = 244
VERSION = tuple(int(n) for n in platform.release().split('.')[:2])
GOOD = 'guest_memfd RAM works on this host: bound'
# PR_CAPBSET_DROP, CAP_DAC_OVERRIDE: root, too, shall be refused what the mode forbids
DROP_OVERRIDE = 24, 1


def load_tool():
    loader = importlib.machinery.SourceFileLoader('host_check', str(TOOL))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('host_check', loader))
    loader.exec_module(module)
    return module


def kvm_maps_guest_memfd():
    try:
        with open('/dev/kvm', 'r+b', buffering=0) as kvm:
            return fcntl.ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS) & 3 == 3
    except OSError:
        return False


def run(*args, fault=None, **kwargs):
    env = dict(os.environ)
    with tempfile.NamedTemporaryFile('w', prefix='host-check-test.') as faults:
        if fault:
            faults.write(fault)
            faults.flush()
            env.update(LD_PRELOAD=LIBRARY, GUEST_MEMFD_FAULT=faults.name)
        return subprocess.run([sys.executable, str(TOOL), *args], env=env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


class Answers(unittest.TestCase):
    def ask(self, *args, **kwargs):
        result = run('--json', *args, **kwargs)
        self.assertEqual(result.stderr, '')
        answer = json.loads(result.stdout)
        self.assertEqual(answer['exit'], result.returncode)
        self.rows = {row['check']: row for row in answer['checks']}
        return result.returncode, answer['verdict']

    def row(self, name, verdict, found='', remedy=''):
        row = self.rows[name]
        self.assertEqual(row['verdict'], verdict, row)
        self.assertIn(found, row['found'])
        self.assertIn(remedy, row['remedy'])

    def fails(self, name, remedy, *args, found='', **kwargs):
        """Row `name` is what is missing, and its remedy is the verdict."""
        status, verdict = self.ask(*args, **kwargs)
        self.assertEqual(status, 2)
        self.assertIn(f'does not work on this host: {remedy}', verdict)
        self.row(name, 'missing', found, remedy)
        self.row('bind', 'unknown', 'not tried')


@unittest.skipUnless(kvm_maps_guest_memfd(), 'KVM of this host has no guest_memfd to map')
class KVMTest(Answers):
    @unittest.skipIf(platform.machine() == 'aarch64' and VERSION < (7, 1),
                     'arm64 before Linux 7.1 may not bind')
    def test_good_host_binds(self):
        self.assertEqual(self.ask(), (0, GOOD))
        self.assertIn(platform.release(), self.rows['kernel']['found'])
        for name in ('KVM device', 'virtual machine', 'memslots', 'guest_memfd', 'flags',
                     'create', 'host mapping', 'bind', 'dirty logging', 'allocate, free'):
            self.row(name, 'ok')

    def test_table_ends_with_the_verdict_and_shows_remedies(self):
        result = run(fault='create=13')
        self.assertEqual(result.returncode, 2, result.stderr)
        *rows, blank, verdict = result.stdout.splitlines()
        self.assertEqual(blank, '')
        self.assertIn('does not work on this host: a security module forbids it', verdict)
        at = next(n for n, row in enumerate(rows) if row.startswith('create '))
        self.assertIn(' missing ', rows[at])
        self.assertIn('-> a security module', rows[at + 1])

    def test_kernel_without_guest_memfd(self):
        self.fails('guest_memfd', 'boot Linux 6.18 or later', fault='cap=0')

    def test_guest_memfd_without_flags(self):
        self.fails('flags', "this kernel's guest_memfd is for the private", fault='flags=0')

    def test_guest_memfd_that_starts_private(self):
        self.fails('flags', "this kernel's guest_memfd is for the private", fault='flags=1')

    def test_creation_denied(self):
        self.fails('create', 'a security module forbids it', fault='create=13', found='EACCES')

    def test_creation_without_free_descriptors(self):
        self.fails('create', 'raise the limit on open files', fault='create=24')

    def test_refused_bind_leaves_the_mapping(self):
        status, verdict = self.ask(fault='bind=22')
        self.assertEqual(status, 1)
        self.assertIn('by the host mapping only (leave kvm-bind=auto', verdict)
        self.row('bind', 'limited', 'EINVAL')
        self.row('dirty logging', 'ok')

    def test_no_dirty_logging_is_a_limit(self):
        self.assertEqual(self.ask(fault='log=22'), (0, GOOD))
        self.row('dirty logging', 'limited', 'EINVAL', 'no live migration')

    def test_no_fallocate_is_a_limit(self):
        self.assertEqual(self.ask(fault='fallocate=28'), (0, GOOD))
        self.row('allocate, free', 'limited', 'cannot allocate: ENOSPC')

    def test_userfaultfd_as_the_kernel_says(self):
        self.ask(fault='uffd=22')
        self.row('userfaultfd', 'limited', 'EINVAL', 'no postcopy migration and no background')
        self.ask(fault='uffd=0')
        self.row('userfaultfd', 'ok')

    def test_numa_policy_matters_with_two_nodes(self):
        with tempfile.TemporaryDirectory(prefix='host-check-test.') as root:
            for node in 0, 1:
                Path(root, f'sys/devices/system/node/node{node}').mkdir(parents=True)
            row = tool.ask(tool.Host(root=root))['NUMA policy']
        self.assertEqual(row.verdict, 'ok' if VERSION >= (6, 19) else 'limited')
        self.assertIn('2 host nodes', row.found)

    def test_low_limit_on_open_files_is_a_limit(self):
        self.ask(preexec_fn=lambda: tool.resource.setrlimit(tool.resource.RLIMIT_NOFILE,
                                                            (256, 512)))
        self.row('open files', 'limited', '256 of 512', 'ulimit -n')


class DeviceTest(Answers):
    def test_no_device(self):
        self.fails('KVM device', '', '--device', '/nonexistent', found='no /nonexistent')

    def test_device_without_permission(self):
        libc = ctypes.CDLL(None)
        with tempfile.NamedTemporaryFile(prefix='host-check-test.') as device:
            for mode, remedy in (0o000, 'only the owner'), (0o060, 'join the group'):
                os.fchmod(device.fileno(), mode)
                self.fails('KVM device', remedy, '--device', device.name, found='EACCES',
                           preexec_fn=lambda: libc.prctl(*DROP_OVERRIDE, 0, 0, 0))

    def test_device_that_is_not_kvm(self):
        self.fails('virtual machine', '/dev/null is not KVM', '--device', '/dev/null',
                   found='ENOTTY')

    def test_wrong_option_is_no_verdict(self):
        result = run('--nonsense')
        self.assertEqual((result.returncode, result.stdout), (3, ''))
        self.assertIn('--nonsense; --help', result.stderr)

    def test_crash_is_no_verdict(self):
        # A name that cannot be printed
        os.environ['PYTHONIOENCODING'] = 'ascii:strict'
        self.addCleanup(os.environ.pop, 'PYTHONIOENCODING')
        result = run('--device', '/nonexistent-\N{EURO SIGN}')
        self.assertEqual((result.returncode, result.stdout), (3, ''))
        self.assertIn('UnicodeEncodeError', result.stderr)


class FilesTest(unittest.TestCase):
    """What is read from /proc and /sys, from files of our own."""

    def setUp(self):
        self.root = Path(tempfile.mkdtemp(prefix='host-check-test.'))
        self.addCleanup(shutil.rmtree, self.root)
        self.host = tool.Host('/nonexistent', root=self.root)

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + '\n')

    def expect(self, question, verdict, found, remedy=''):
        row = question(self.host)
        self.assertEqual(row.verdict, verdict, row)
        self.assertIn(found, row.found)
        self.assertIn(remedy, row.remedy)

    def cgroup2(self):
        self.write('proc/self/cgroup', '0::/a/b')
        self.write('proc/self/mountinfo',
                   '30 23 0:26 / /cg rw shared:4 - cgroup2 cgroup2 rw,nsdelegate')
        self.write('cg/a/b/memory.max', 'max')

    def test_cgroup_without_limit(self):
        self.cgroup2()
        self.expect(tool.ask_cgroup, 'ok', 'no limit')

    def test_cgroup_limit_of_a_parent_counts(self):
        self.cgroup2()
        self.write('cg/a/memory.max', str(1 << 20))
        self.expect(tool.ask_cgroup, 'limited', 'memory.max is 0.0 GiB in /cg/a', 'kills QEMU')

    def test_cgroup_lowest_limit_counts(self):
        self.cgroup2()
        self.write('cg/a/b/memory.max', str(3 << 29))
        self.write('cg/a/memory.max', str(2 << 30))
        self.expect(tool.ask_cgroup, 'limited', '1.5 GiB in /cg/a/b')

    def test_cgroup_version_1(self):
        self.write('proc/self/cgroup', '4:cpu,memory:/docker/c1\n0::/')
        self.write('proc/self/mountinfo',
                   '41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n'
                   '35 31 0:32 /docker/c1 /cg/memory rw - cgroup cgroup rw,cpu,memory')
        self.write('cg/memory/memory.limit_in_bytes', '9223372036854771712')
        self.expect(tool.ask_cgroup, 'ok', 'no limit')
        self.write('cg/memory/memory.limit_in_bytes', str(1 << 30))
        self.expect(tool.ask_cgroup, 'limited', 'memory.limit_in_bytes is 1.0 GiB in /cg/memory')

    def test_cgroup_out_of_sight(self):
        self.write('proc/self/cgroup', '0::/a/b')
        self.expect(tool.ask_cgroup, 'unknown', 'not visible', 'outside of this container')

    def test_selinux(self):
        self.expect(tool.ask_selinux, 'ok', 'not active')
        self.write('proc/self/attr/current', 'unconfined_u:unconfined_r:unconfined_t:s0\0')
        self.write('sys/fs/selinux/enforce', '0')
        self.expect(tool.ask_selinux, 'ok', 'permissive')
        self.write('sys/fs/selinux/enforce', '1')
        self.expect(tool.ask_selinux, 'unknown',
                    'enforcing, this is unconfined_u:unconfined_r:unconfined_t:s0',
                    'svirt_t must be allowed to create, getattr, map')

    def test_apparmor(self):
        self.expect(tool.ask_apparmor, 'ok', 'not active')
        self.write('sys/module/apparmor/parameters/enabled', 'Y')
        self.write('proc/self/attr/current', 'unconfined')
        self.expect(tool.ask_apparmor, 'ok', 'unconfined')
        self.write('etc/apparmor.d/abstractions/libvirt-qemu', '')
        self.expect(tool.ask_apparmor, 'unknown', 'active', '/etc/apparmor.d/local/abstractions')

    def test_processor(self):
        self.write('proc/cpuinfo', 'flags\t\t: fpu vme')
        self.expect(tool.ask_processor, 'missing', 'no vmx or svm', 'firmware')
        self.write('proc/cpuinfo', 'flags\t\t: fpu svm vme')
        self.expect(tool.ask_processor, 'ok', 'svm, kvm_amd')
        self.write('sys/module/kvm_pvm/parameters/x', '')
        self.expect(tool.ask_processor, 'limited', 'kvm_pvm', 'Linux guests do not boot')
        self.write('sys/module/kvm_amd/parameters/x', '')
        self.expect(tool.ask_processor, 'ok', 'svm, kvm_amd')

    def test_kernel(self):
        for machine, release, verdict in (
                ('x86_64', '6.18.0-rc1', 'ok'), ('aarch64', '7.0.13', 'ok'),
                ('x86_64', '6.9.1', 'unknown'), ('x86_64', '6.17.13+deb13-amd64', 'unknown'),
                ('s390x', '7.3.4', 'missing')):
            self.host.machine = machine
            with mock.patch('platform.release', return_value=release):
                self.expect(tool.ask_kernel, verdict, release)

    def test_arm64_that_may_hang(self):
        self.host.ram = b''
        for release, verdict in ('6.18.5', 'unknown'), ('7.0.13', 'unknown'), ('7.1.0', 'ok'):
            with mock.patch('platform.release', return_value=release):
                self.expect(tool.ask_execute, verdict, '')

    @unittest.skipUnless(platform.machine() == 'x86_64', 'the modules are those of x86-64')
    def test_no_device_names_the_module(self):
        self.write('proc/cpuinfo', 'flags\t\t: fpu vmx')
        self.expect(tool.ask_device, 'missing', 'no /nonexistent', 'modprobe kvm_intel')
        self.write('sys/module/kvm_intel/parameters/x', '')
        self.expect(tool.ask_device, 'missing', 'no /nonexistent', 'pass /nonexistent into')


class ConclusionTest(unittest.TestCase):
    """Verdicts that need another machine than this."""

    def conclude(self, **rows):
        return tool.conclude({name: tool.Row('', *row) for name, row in rows.items()})

    def test_first_missing_row_is_the_verdict(self):
        status, verdict = self.conclude(a=('unknown',), b=('missing', 'do b'),
                                        c=('missing', 'do c'), bind=('unknown',))
        self.assertEqual((status, verdict),
                         (2, 'guest_memfd RAM does not work on this host: do b'))

    def test_arm64_that_may_hang_is_not_called_bound(self):
        status, verdict = self.conclude(bind=('ok',), execute=('unknown', 'use Linux 7.1'))
        self.assertEqual(status, 1)
        self.assertIn('by the host mapping only (use Linux 7.1)', verdict)

    def test_limits_do_not_matter(self):
        self.assertEqual(self.conclude(bind=('ok',), userfaultfd=('limited', 'x')), (0, GOOD))


if __name__ == '__main__':
    kvm.ensure(BUILD, 'host-check')
    tool = load_tool()
    tap.main()
