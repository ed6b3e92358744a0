#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU without KVM must link, start, and refuse a guest_memfd with a sentence.

usage: test-without-kvm.py BUILD
Builds one, with little else in it, in BUILD/qemu-without-kvm, from the tree that the
ordinary build has overlaid. That takes some minutes, so it runs only by its name:
`./check without-kvm`.
"""

import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))
import tap

if len(sys.argv) != 2:
    sys.exit(__doc__.split('\n\n', maxsplit=1)[1])
BUILD = Path(sys.argv[1]).resolve()
QEMU = BUILD / 'qemu-without-kvm'
CONFIGURE = ['../src/qemu/configure', f'--python={sys.executable}', '--target-list=x86_64-softmmu',
             '--without-default-features', '--enable-system', '--enable-tcg', '--disable-kvm',
             '--enable-fdt=system', '--enable-pixman', '--disable-docs', '--disable-download',
             '--disable-install-blobs', '-Ddebug=false']


def run(*command, **kwargs):
    return subprocess.run(command, cwd=QEMU, text=True, check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **kwargs)


def qemu(*args, **kwargs):
    return run('./qemu-system-x86_64', '-display', 'none', '-nodefaults', '-m', '64M', *args,
               **kwargs)


class WithoutKVM(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        QEMU.mkdir(exist_ok=True)
        cc = os.environ.get('CC', 'gcc')
        if shutil.which('ccache'):
            cc = f'ccache {cc}'
            os.environ['CCACHE_BASEDIR'] = str(Path(__file__).resolve().parents[2])
            os.environ['CCACHE_NOHASHDIR'] = '1'
        if not (QEMU / 'build.ninja').exists():
            made = run(*CONFIGURE, f'--cc={cc}')
            assert not made.returncode, made.stdout[-2000:]
        made = run('ninja', 'qemu-system-x86_64')
        assert not made.returncode, made.stdout[-4000:]

    def test_links_without_kvm(self):
        self.assertNotIn('kvm', qemu('-accel', 'help').stdout)

    def test_starts(self):
        said = qemu('-accel', 'tcg', '-S', '-monitor', 'stdio', input='info guest-memfd\nquit\n')
        self.assertEqual(said.returncode, 0, said.stdout)
        self.assertNotIn('unknown command', said.stdout)

    def refused(self, *args):
        said = qemu(*args, stdin=subprocess.DEVNULL)
        self.assertEqual(said.returncode, 1, said.stdout)
        self.assertIn('guest_memfd needs KVM', said.stdout)

    def test_object(self):
        self.refused('-object', 'memory-backend-guest-memfd,id=ram0,size=64M')

    def test_machine(self):
        self.refused('-machine', 'q35,guest-memfd=on')


if __name__ == '__main__':
    tap.main()
