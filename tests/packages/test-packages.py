#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Install the Debian packages that `make deb` has made, as a user does.

usage: test-packages.py BUILD
On Debian 12 and 13, in directories of BUILD/packages: install, start guests, upgrade, remove.
Those for arm64 are unpacked for an emulated host, which starts a guest.
Needs root, and Debian's mirror.
"""

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
sys.path[:0] = [str(TOP / d) for d in ('scripts', 'tests/nested', 'scripts/tests')]
import entry
import host
import kvm
import tap
from debian_root import Root, difference

NAMES = ('qemu-system-x86-guest-memfd', 'qemu-system-arm-guest-memfd',
         'qemu-system-guest-memfd-data', 'qemu-utils-guest-memfd', 'guest-memfd-tools',
         'qemu-guest-memfd-doc')
# Those without programs for one architecture
FOR_ALL = ('qemu-system-guest-memfd-data', 'guest-memfd-tools', 'qemu-guest-memfd-doc')
PROGRAM = 'qemu-system-x86_64-guest-memfd'
GUEST = '/tmp/guest.py'
SELINUX = 'selinux'      # a root of its own
OWN = platform.freedesktop_os_release().get('VERSION_CODENAME')
PAGES = (TOP / 'README.md', TOP / 'docs/system/guest-memfd.rst')
DEBIANS = ('qemu-system-x86', 'qemu-utils', 'libvirt-daemon-system', 'libvirt-clients',
           'libvirt-daemon', 'apparmor')


def made(suite, arch=None):
    """The packages for a release; or, for another architecture, what is not for all of them.

    Says how they are made, and returns none, unless all have been.
    """
    where, options, names = f'deb-{suite}', f' --suite {suite}', NAMES
    if arch:
        where += f'-{arch}'
        options += f' --arch {arch}'
        names = [name for name in NAMES if name not in FOR_ALL]
    elif suite == OWN:
        where, options = 'deb', ''
    found = {deb.name.partition('_')[0]: deb for deb in (BUILD / where).glob('*.deb')}
    if not found.keys() >= set(names):
        print(f'# not tested, since they were not made: scripts/deb{options}', flush=True)
        return []
    debs = [found[name] for name in names]
    print(f'# {where}: built from {origin(debs[0])}', flush=True)
    return debs


def changes(deb):
    """What dpkg-buildpackage says of this package, and of those made with it."""
    return next(deb.parent.glob('*.changes'))


def origin(deb):
    """What it was built from, in the words of its changelog."""
    return re.search(r'Built from (.*?)\.', changes(deb).read_text())[1]


def for_arm64(trixie):
    """The packages for that host: its own, and those of @trixie that are for all."""
    common = [deb for deb in trixie if deb.name.partition('_')[0] in FOR_ALL]
    own = common and made('trixie', 'arm64')
    if own and origin(own[0]) != origin(common[0]):
        print(f'# not tested, since {own[0].parent.name} and {common[0].parent.name} are not of '
              'the same source', flush=True)
        return []
    return own and own + common


def bring_guest(root):
    """Have what a user does in a root file system."""
    shutil.copy(HERE / 'guest.py', root / GUEST[1:])


def assert_lintian_finds_nothing(deb):
    """In all packages that were made with this one."""
    said = subprocess.run(['lintian', '--fail-on', 'error,warning', changes(deb)], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if said.returncode:
        raise AssertionError(said.stdout)


def shown_commands():
    """The emulator's command lines that the pages show, each in one line."""
    found = []
    for page in PAGES:
        text = page.read_text().replace('|qemu_system|', 'qemu-system-x86_64')
        text = re.sub(r'\\+\n\s*', '', text)
        found += re.findall(r'^ +(qemu-system-x86_64 -.*)', text, re.MULTILINE)
    return found


def next_revision(deb, into):
    """The same package with the next number, to be an upgrade."""
    tree = into / deb.name.partition('_')[0]
    subprocess.run(['rm', '-rf', tree], check=True)
    subprocess.run(['dpkg-deb', '-R', deb, tree], check=True)
    control = tree / 'DEBIAN/control'
    version = re.search(r'^Version: (.*)', control.read_text(), re.MULTILINE)[1]
    later = re.sub(r'-(\d+)', lambda m: f'-{int(m[1]) + 1}', version)
    control.write_text(control.read_text().replace(version, later))
    made = into / deb.name.replace(version, later)
    subprocess.run(['dpkg-deb', '-Zgzip', '-z1', '--root-owner-group', '-b', tree, made],
                   check=True, stdout=subprocess.DEVNULL)
    subprocess.run(['rm', '-rf', tree], check=True)
    return made, later


class PackageTest:
    """On one suite, in this order."""
    debs = None         # main() finds them

    @classmethod
    def setUpClass(cls):
        cls.root = Root(SCRATCH, cls.suite)
        cls.bare = cls.root.files(), cls.root.packages()

    def user(self, job):
        bring_guest(self.root.path)
        return self.root.run('python3', GUEST, job)

    def on_kvm(self, job):
        """As user(), on a KVM that binds guest_memfds."""
        bring_guest(self.root.path)
        command = [str(word) for word in self.root.command('python3', GUEST, job)]
        if kvm.reason_not_here():
            emulated, _ = host.prepare(BUILD, f'{os.uname().machine}-machine',
                                       log=f'packages-{self.suite}-{job}')
            self.assertTrue(emulated.run_well(shlex.join(command)))
        else:
            subprocess.run(command, check=True)

    def keep(self, directory):
        """Have it as it is again when this test is over."""
        copy = Path(tempfile.mkdtemp(dir=SCRATCH))

        def restore():
            shutil.rmtree(directory, ignore_errors=True)
            if (copy / directory.name).exists():
                subprocess.run(['cp', '-a', copy / directory.name, directory], check=True)
            shutil.rmtree(copy)

        if directory.exists():
            subprocess.run(['cp', '-a', directory, copy], check=True)
        self.addCleanup(restore)

    def assert_as(self, before):
        files, packages = before
        self.assertEqual(difference(packages, self.root.packages()), [])
        self.assertEqual(difference(files, self.root.files()), [])

    def test_0_lintian(self):
        """Debian's own checker finds nothing that is not explained"""
        assert_lintian_finds_nothing(self.debs[0])

    def test_1_alone(self):
        """With nothing but what the packages depend on"""
        self.root.install(self.debs)
        self.assertIn('guest-memfd', self.root.run(PROGRAM, '--version').splitlines()[0])
        said = self.user('tcg')
        self.assertEqual(said.count(': guest has booted'), 3, said)
        for program in 'guest-memfd-top', 'guest-memfd-host-check', 'qemu-img-guest-memfd':
            self.root.run(program, '--help')

    def test_2_purge(self):
        """Nothing is left, and what came for it goes, too"""
        self.root.apt('autoremove', '--purge', *NAMES)
        self.assert_as(self.bare)

    def test_3_beside_debian(self):
        """Beside Debian's own, which stays as it is"""
        self.root.apt('install', *DEBIANS)
        type(self).with_debian = self.root.files(), self.root.packages()
        version = self.root.run('qemu-system-x86_64', '--version')
        self.root.install(self.debs)
        self.assertEqual(self.root.run('qemu-system-x86_64', '--version'), version)
        self.assertNotEqual(self.root.run(PROGRAM, '--version'), version)
        changed = difference({n: a for n, a in self.with_debian[0].items()
                              if not n.startswith('etc/apparmor.d/local')}, self.root.files())
        # Only new files
        self.assertEqual([line for line in changed if not line.startswith('+ ')], [])
        self.assertEqual(self.root.run('dpkg', '--verify'), '')

    def profile(self):
        """All rules of a guest under libvirt, as AppArmor's parser sees them."""
        template = self.root.path / 'etc/apparmor.d/libvirt/TEMPLATE.qemu'
        (self.root.path / 'tmp/guest').write_text(
            template.read_text().replace('LIBVIRT_TEMPLATE', 'libvirt-guest'))
        self.root.run('apparmor_parser', '--skip-kernel-load', '--skip-cache', '/tmp/guest')
        return self.root.run('apparmor_parser', '--preprocess', '/tmp/guest')

    def test_4_apparmor(self):
        """libvirt's profile admits the program"""
        self.assertIn(f'{PROGRAM.replace("x86_64", "{aarch64,x86_64}")} rmix,', self.profile())

    def test_5_kvm(self):
        """A guest whose RAM is bound; and each command that the pages show"""
        commands = shown_commands()
        self.assertGreaterEqual(len(commands), 4, commands)
        (self.root.path / 'tmp/commands').write_text('\n'.join(commands))
        self.on_kvm('kvm')

    def test_6_libvirt(self):
        """The documented domain under Debian's libvirt"""
        # What it writes is none of the packages'
        for name in 'etc/libvirt', 'var/lib/libvirt', 'var/log/libvirt', 'var/cache/libvirt':
            self.keep(self.root.path / name)
        self.on_kvm('libvirt')

    def test_6_libvirt_confined(self):
        """The same with AppArmor, which this machine's kernel may not have"""
        bring_guest(self.root.path)
        if self.suite == OWN:
            # As the manual has it without packages, too
            page = (TOP / 'docs/system/guest-memfd-libvirt.rst').read_text()
            rules = dict(re.findall(r'``/etc/apparmor.d/local/(\S+)``,[^`:]*::\n\n((?:  .*\n)+)',
                                    page))
            self.assertEqual(len(rules), 2, rules)
            (self.root.path / 'tmp/rules').write_text(json.dumps(rules))
            self.keep(self.root.path / 'usr/local')
            subprocess.run([BUILD / 'tools/meson', 'install', '-C', BUILD, '--no-rebuild',
                            '--quiet'], env={**os.environ, 'DESTDIR': str(self.root.path)},
                           stdout=subprocess.DEVNULL, check=True)
        emulated, _ = host.prepare(BUILD, f'{os.uname().machine}-machine', files=self.root.path,
                                   log=f'packages-{self.suite}-apparmor')
        self.assertTrue(emulated.run_well(f'python3 {GUEST} apparmor'))

    def test_7_upgrade(self):
        """To the next revision"""
        later = [next_revision(deb, SCRATCH) for deb in self.debs]
        self.root.install([deb for deb, _ in later])
        for deb, _ in later:
            deb.unlink()
        for name, (_, version) in zip(NAMES, later):
            self.assertEqual(self.root.run('dpkg-query', '-W', '-f', '${Version}', name), version)
        self.assertEqual(self.root.run('dpkg', '--verify'), '')
        self.assertIn(PROGRAM.replace('x86_64', '{aarch64,x86_64}'), self.profile())
        self.user('tcg')

    def test_8_remove(self):
        """Programs go; files that an administrator may have changed stay"""
        self.root.apt('remove', *NAMES)
        self.root.run('sh', '-c', f'! command -v {PROGRAM}')

    def test_9_purge(self):
        """All is as it was before they came"""
        self.root.run('dpkg', '--purge', *(n for n, state in self.root.packages().items()
                                           if state == 'rc' and n in NAMES))
        self.root.apt('autoremove', '--purge')
        self.assert_as(self.with_debian)
        self.assertNotIn('guest-memfd', self.profile())


class BookwormTest(PackageTest, unittest.TestCase):
    suite = 'bookworm'


class TrixieTest(PackageTest, unittest.TestCase):
    suite = 'trixie'


class Arm64Test(unittest.TestCase):
    """The packages for arm64, unpacked on an arm64 host with KVM."""
    debs = None

    def test_lintian(self):
        """Debian's own checker finds nothing that is not explained"""
        assert_lintian_finds_nothing(self.debs[0])

    def test_libvirt(self):
        """The documented domain under Debian's libvirt, with UEFI and the host's kernel"""
        shutil.rmtree(BUILD / 'nested/root-aarch64-packages', ignore_errors=True)
        emulated, _ = host.prepare(BUILD, 'aarch64-packages', debs=self.debs)
        # Maintainer scripts do not run here: this is what those of libvirt would do
        for file, line in (('passwd', 'libvirt-qemu:x:64055:64055::/nonexistent:/bin/false'),
                           ('group', 'libvirt-qemu:x:64055:'), ('group', 'libvirt:x:64056:'),
                           ('group', 'kvm:x:64057:')):
            with (emulated.files / 'etc' / file).open('a') as database:
                database.write(f'{line}\n')
        boot = emulated.files / 'tmp/esp/EFI/BOOT'
        boot.mkdir(parents=True)
        shutil.copy(emulated.kernel.image, boot / 'BOOTAA64.EFI')
        bring_guest(emulated.files)
        self.assertTrue(emulated.run_well(f'python3 {GUEST} libvirt'))


class SelinuxTest(unittest.TestCase):
    """The manual's module for SELinux."""
    debs = None

    def test_module(self):
        """Compiled with Debian's policy, it allows what the kernel asks about a guest_memfd"""
        page = (TOP / 'docs/system/guest-memfd-libvirt.rst').read_text()
        rule, = re.findall(r'^  (\(allow .*anon_inode.*\))$', page, re.MULTILINE)
        root = Root(SCRATCH, OWN, SELINUX)
        root.install(self.debs)
        root.apt('install', 'selinux-policy-default', 'setools', 'policycoreutils-python-utils')
        (root.path / 'tmp/guest-memfd.cil').write_text(f'{rule}\n')
        labels = re.findall(r'^  ((?:semanage|restorecon) .*\n)', page, re.MULTILINE)
        self.assertEqual(len(labels), 2, labels)
        (root.path / 'tmp/commands').write_text(''.join(labels))
        bring_guest(root.path)
        emulated, _ = host.prepare(BUILD, f'{os.uname().machine}-machine', files=root.path,
                                   log='packages-selinux')
        emulated.variables['security'] = 'selinux'
        self.assertTrue(emulated.run_well(f'python3 {GUEST} selinux'))
        root.run('semodule', '--noreload', '-s', 'default', '-i', '/tmp/guest-memfd.cil')
        said = root.run('sh', '-c', 'sesearch --allow -s svirt_t -t svirt_t -c anon_inode '
                        '/etc/selinux/default/policy/policy.*')
        self.assertIn('{ create getattr map read write }', said)


def main():
    missing = [tool for tool in ('mmdebstrap', 'lintian') if not shutil.which(tool)]
    if missing or os.getuid():
        print(f'1..0 # SKIP needs {missing[0] if missing else "root"}')
        return
    SCRATCH.mkdir(exist_ok=True)
    for test in BookwormTest, TrixieTest:
        test.debs = made(test.suite)
    Arm64Test.debs = for_arm64(TrixieTest.debs)
    SelinuxTest.debs = {test.suite: test.debs for test in (BookwormTest, TrixieTest)}.get(OWN)
    tests = [BookwormTest, TrixieTest, Arm64Test, SelinuxTest]
    if not any(test.debs for test in tests):
        sys.exit('error: no packages to test: make deb')
    for test in tests:
        if not test.debs:
            del globals()[test.__name__]
    passed = tap.run()
    if passed:
        # What failed can be looked at
        for suite in (BookwormTest.suite, TrixieTest.suite, SELINUX):
            shutil.rmtree(SCRATCH / suite, ignore_errors=True)
    sys.exit(0 if passed else 1)


if __name__ == '__main__':
    BUILD = Path(sys.argv.pop(1)).resolve()
    SCRATCH = BUILD / 'packages'
    entry.run(main)
