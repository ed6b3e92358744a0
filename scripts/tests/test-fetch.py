#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test dependencies, private-apt and the fetch of qemu-source.py against a false APT."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import tap

SCRIPTS = Path(__file__).resolve().parent.parent
GONE = 3                # of qemu-source.py
DEBIAN = '''
'http://mirror.example/debian/dists/{0}/InRelease' x 0
'http://mirror.example/debian/dists/{0}-updates/InRelease' x 0
'http://security.example/dists/{0}-security/InRelease' x 0
'http://mirror.example/debian/dists/{0}/main/binary-amd64/Packages.xz' x 0
'https://third.party.example/repo/dists/any/InRelease' x 0
'''
SOURCE = '''Format: 3.0 (native)
Source: qemu
Version: {0}
Maintainer: Nobody <nobody@example.org>
Architecture: any
Checksums-Sha256:
 {1} {2} {3}
Files:
 {4} {2} {3}
'''


class FetchTest(unittest.TestCase):
    def setUp(self):
        self.top = Path(tempfile.mkdtemp(prefix='fetch-test.'))
        self.addCleanup(shutil.rmtree, self.top)
        self.repo = self.top / 'repo'
        self.build = self.top / 'build'
        for name in ('scripts', 'base'):
            shutil.copytree(SCRIPTS.parent / name, self.repo / name, symlinks=True)
        self.bin = self.top / 'bin'
        self.bin.mkdir()

    def script(self, path, text):
        path.write_text(f'#!/bin/sh\n{text}\n')
        path.chmod(0o755)

    def run_it(self, *command, **env):
        return subprocess.run([str(c) for c in command], text=True, cwd=self.top,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={'PATH': f'{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin', **env})

    # What is missing

    def test_missing_packages_are_listed_and_nothing_is_installed(self):
        self.script(self.bin / 'dpkg-query', 'case $4 in gcc) echo "not-installed ";; '
                    'esac; case $4 in make) echo "installed " ;; esac')
        self.script(self.bin / 'apt-get', f'touch {self.top}/called')
        result = self.run_it(self.repo / 'scripts/dependencies', NO_INSTALL='1')
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stdout, r'Packages to install: gcc .*ninja-build')
        self.assertNotRegex(result.stdout, r'\bmake\b')
        self.assertRegex(result.stderr, r'apt-get install -y --no-install-recommends gcc ')
        self.assertFalse((self.top / 'called').exists())

    def test_only_the_lists_named_count(self):
        self.script(self.bin / 'dpkg-query', 'exit 1')
        for lists, wanted in ([], False), (['build-depends', 'test-depends'], True):
            result = self.run_it(self.repo / 'scripts/dependencies', *lists, NO_INSTALL='1')
            packages = result.stdout.split()
            self.assertIn('ninja-build', packages)
            self.assertEqual('gcc-aarch64-linux-gnu' in packages, wanted, result.stdout)

    def test_nothing_is_said_when_nothing_is_missing(self):
        self.script(self.bin / 'dpkg-query', 'echo "installed "')
        result = self.run_it(self.repo / 'scripts/dependencies')
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, '', ''))

    # The private APT

    def sources(self, listed, suite='trixie'):
        self.script(self.bin / 'apt-get', f'cat <<"END"\n{listed}\nEND')
        result = self.run_it(self.repo / 'scripts/private-apt', self.top / 'apt', suite,
                             'apt-get', 'update')
        return result, (self.top / 'apt/sources.list').read_text()

    def test_mirror_is_the_machines_own(self):
        result, sources = self.sources(DEBIAN.format('stable'))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(sources, r'deb-src \[.*\] http://mirror.example/debian trixie main\n')
        self.assertRegex(sources, r'http://mirror.example/debian trixie-updates main\n')
        self.assertRegex(sources, r'http://security.example trixie-security main\n')
        self.assertNotIn('third.party', sources)
        self.assertNotIn('stable', sources)

    def test_development_suite_has_no_updates(self):
        result, sources = self.sources(DEBIAN.format('stable'), 'sid')
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(sources, r'deb-src \[.*\] http://mirror.example/debian sid main\n')
        self.assertNotRegex(sources, 'sid-|security')

    def test_sources_without_debian_are_refused(self):
        result, _ = self.sources(DEBIAN.format('noble'))
        self.assertEqual(result.returncode, 1)
        self.assertIn('name no Debian mirror', result.stderr)

    # QEMU's source package

    def offer(self, version):
        """A mirror that offers a QEMU of this version, as a tiny source package."""
        name = f'qemu_{version[2:]}'
        mirror = self.top / 'mirror'
        tree = mirror / 'qemu'
        (tree / 'debian/source').mkdir(parents=True, exist_ok=True)
        (tree / 'VERSION').write_text('10.0.99\n')
        (tree / 'configure').touch()
        tarball = mirror / f'{name}.tar.gz'
        subprocess.run(['tar', '-czf', tarball, '-C', mirror, 'qemu'], check=True)
        data = tarball.read_bytes()
        (mirror / f'{name}.dsc').write_text(SOURCE.format(
            version, hashlib.sha256(data).hexdigest(), len(data), tarball.name,
            hashlib.md5(data).hexdigest()))
        self.script(self.repo / 'scripts/private-apt',
                    f'case "$*" in *showsrc*) echo "Version: {version}" ;; '
                    f'*source*) cp {mirror}/qemu_* . ;; esac')
        return tarball

    def pin(self, version, tarball, sha256):
        (self.repo / 'base/10.0/source').write_text(
            f'[qemu]\nversion = {version}\nsuite = trixie\n'
            f'[sha256]\n{tarball.name} = {sha256}\n')

    def fetch(self):
        return self.run_it(sys.executable, self.repo / 'scripts/qemu-source.py', self.build)

    def test_pinned_package_is_unpacked(self):
        tarball = self.offer('1:10.0.13-1')
        self.pin('1:10.0.13-1', tarball, hashlib.sha256(tarball.read_bytes()).hexdigest())
        result = self.fetch()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertNotIn('notice', result.stdout)
        self.assertTrue((self.build / 'src/qemu/configure').exists())

    def test_second_run_fetches_nothing(self):
        self.test_pinned_package_is_unpacked()
        self.script(self.repo / 'scripts/private-apt', 'exit 1')
        result = self.fetch()
        self.assertEqual((result.returncode, result.stdout), (0, ''))

    def test_other_content_than_pinned_is_refused(self):
        tarball = self.offer('1:10.0.13-1')
        self.pin('1:10.0.13-1', tarball, '0' * 64)
        result = self.fetch()
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, f'{tarball.name} is not the file that .* pins')
        self.assertFalse((self.build / 'src/qemu').exists())

    def test_later_point_release_is_taken_with_a_notice(self):
        self.offer('1:10.0.99-1')
        result = self.fetch()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn('has left the mirror; taking 1:10.0.99-1', result.stdout)
        self.assertTrue((self.build / 'src/qemu/configure').exists())

    def test_other_series_and_earlier_release_are_refused_with_the_remedy(self):
        for version in ('1:10.1.0-1', '1:10.0.12-1'):
            self.offer(version)
            result = self.fetch()
            self.assertEqual(result.returncode, GONE)
            self.assertIn('nor a later 10.0 in trixie', result.stderr)
            self.assertIn('QEMU_SRC', result.stderr)

    def test_mirror_without_a_package_list_is_not_one_that_lost_it(self):
        self.script(self.repo / 'scripts/private-apt', 'exit 0')
        result = self.fetch()
        self.assertEqual(result.returncode, 1)
        self.assertIn('no package list of Debian trixie', result.stderr)

    def test_failing_fetch_names_the_remedy(self):
        self.script(self.repo / 'scripts/private-apt', 'exit 100')
        result = self.fetch()
        self.assertEqual(result.returncode, 1)
        self.assertIn('QEMU_SRC', result.stderr)


if __name__ == '__main__':
    tap.main()
