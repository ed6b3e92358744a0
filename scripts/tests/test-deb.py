#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test what scripts/deb decides before it builds: versions, dependencies, what it refuses."""

import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))
import tap

TOP = Path(__file__).resolve().parents[2]
LOADER = importlib.machinery.SourceFileLoader('deb', str(TOP / 'scripts/deb'))
deb = importlib.util.module_from_spec(importlib.util.spec_from_loader('deb', LOADER))
LOADER.exec_module(deb)

BOOKWORM = {'ID': 'debian', 'VERSION_ID': '12', 'VERSION_CODENAME': 'bookworm'}
TRIXIE = {'ID': 'debian', 'VERSION_ID': '13', 'VERSION_CODENAME': 'trixie'}
UNSTABLE = {'ID': 'debian'}


def version(system, upstream='10.0.13+gmem1', **env):
    with mock.patch.dict(os.environ, env):
        return re.match(r'qemu-guest-memfd \((.*)\) ', deb.changelog(upstream, system)[0])[1]


class VersionTest(unittest.TestCase):
    def assert_ascending(self, *versions):
        for old, new in zip(versions, versions[1:]):
            self.assertEqual(subprocess.run(['dpkg', '--compare-versions', old, 'lt', new],
                                            check=False).returncode, 0, f'{old} < {new}')

    def test_an_upgrade_of_the_system_brings_its_own(self):
        self.assertEqual(version(BOOKWORM), '10.0.13+gmem1-1~deb12u1')
        self.assert_ascending(version(BOOKWORM), version(TRIXIE), version(UNSTABLE))

    def test_what_is_later_is_an_upgrade(self):
        self.assert_ascending(version(TRIXIE), version(BOOKWORM, DEB_REVISION='2'),
                              version(BOOKWORM, '10.0.13+gmem2'),
                              version(BOOKWORM, '10.0.14+gmem2'),
                              version(BOOKWORM, '10.2.2+gmem2'))

    def test_the_release_is_the_one_that_is_asked_for(self):
        self.assertIn('~deb13u1) trixie; ', deb.changelog('1', TRIXIE)[0])

    def test_bad_revision_is_refused(self):
        with self.assertRaisesRegex(SystemExit, 'DEB_REVISION=a-b: it must be like 1'):
            version(BOOKWORM, DEB_REVISION='a-b')


class SpaceTest(unittest.TestCase):
    def test_too_little_is_refused_before_anything_is_made(self):
        for free, refused in (deb.NEEDED_GIB - 1, True), (deb.NEEDED_GIB + 1, False):
            with mock.patch('shutil.disk_usage', lambda _, n=free: mock.Mock(free=n * 2**30)):
                if refused:
                    with self.assertRaisesRegex(SystemExit, f'build has {free}.0 GiB .* clone to'):
                        deb.check_space('build')
                else:
                    deb.check_space('build')


class DependencyTest(unittest.TestCase):
    def test_build_depends_are_those_of_the_build(self):
        """What `make` and `make docs` install is what the package asks for."""
        names = set()
        for file in 'build-depends', 'docs-depends':
            names |= {line.split()[0] for line in (TOP / 'base' / file).read_text().splitlines()
                      if line and not line.startswith('#')}
        control = (TOP / 'packaging/debian/control').read_text()
        field = re.search(r'^Build-Depends:\n((?: .*\n)+)', control, re.MULTILINE)[1]
        asked = {word.split()[0].partition(':')[0] for word in field.split(',') if word.strip()}
        # All that builds has build-essential; Meson is fetched where it is too old.
        self.assertEqual(asked - {'debhelper-compat', 'meson'},
                         names - {'dpkg-dev', 'gcc', 'libc6-dev', 'make'})

    def test_each_package_is_described_in_the_readme(self):
        control = (TOP / 'packaging/debian/control').read_text()
        for name in re.findall(r'^Package: (.*)', control, re.MULTILINE):
            for page in 'README.md', 'docs/system/guest-memfd.rst':
                self.assertIn(f'`{name}`', (TOP / page).read_text(), page)


if __name__ == '__main__':
    tap.main()
