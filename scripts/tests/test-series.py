#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test scripts/series: on a tree of a few files, and on the tree of this build.

usage: test-series.py BUILD
"""

import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]
import bases
import overlay
import repository
import tap
from repository import CLEAN, KVM_ALL

MESON = "ss.add(files(\n  'a.c',\n))\n"
EDIT = '''Two places.

--- a/accel/kvm/kvm-all.c
+++ b/accel/kvm/kvm-all.c
@@ -1,3 +1,3 @@
 line 1
-line 2
+line two
 line 3
@@ -7,2 +7,3 @@
 line 7
+line 7 and a half
 line 8
'''
LIST = '''Ours.

--- a/accel/kvm/meson.build
+++ b/accel/kvm/meson.build
@@ -2,2 +2,4 @@
   'a.c',
+  'plan.c',
+  'slots.c',
 ))
'''
TOPICS = {
    'cover': 'Two topics\n\nFor QEMU @VERSION@.\n',
    '1-plan': 'accel: plan\n\nWhy.\n\nFiles:\naccel/kvm/plan.c\naccel/kvm/kvm-all.c hunks half\n'
              'accel/kvm/meson.build lines plan\n',
    '2-rest': 'accel: the rest\n\nFiles:\naccel/kvm/*\n',
}


def git(tree, *args):
    me = {f'GIT_{role}_{key}': 'me' for role in ('AUTHOR', 'COMMITTER') for key in ('NAME', 'EMAIL')}
    return subprocess.run(['git', '-C', str(tree), *map(str, args)], check=True, text=True,
                          env=CLEAN | me, stdout=subprocess.PIPE).stdout


def patches(series):
    return sorted(series.glob('*.patch'))


class SeriesTest(repository.TestCase):
    def setUp(self):
        super().setUp()
        for name in 'src/pristine', 'src/qemu':
            self.write(self.build / name / 'accel/kvm/meson.build', MESON)
        self.patch(EDIT)
        self.write(self.repo / 'accel/kvm/meson.build.patch', LIST)
        self.write(self.repo / 'accel/kvm/plan.c', 'plan\n')
        self.write(self.repo / 'accel/kvm/slots.c', 'slots\n')
        (self.repo / 'accel/kvm/slots.c').chmod(0o755)
        for name, text in TOPICS.items():
            self.write(self.repo / 'packaging/series' / name, text)
        self.series = self.build / 'series'
        self.overlay()

    def make(self):
        result = self.run_script('series')
        self.assertEqual((result.returncode, result.stderr), (0, ''))
        return result.stdout

    def error(self):
        result = self.run_script('series')
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, '^error: packaging/series[^\n]*\n$')
        return result.stderr

    def text(self, number):
        return patches(self.series)[number].read_text()

    def test_pieces_go_where_the_topics_say(self):
        shown = self.make()
        self.assertIn("2 patches; QEMU's own files: +4 -1 lines, and by fixes +0 -0", shown)
        self.assertIn("+  'plan.c',", self.text(0))
        self.assertIn('+line 7 and a half', self.text(0))
        self.assertNotIn('slots', self.text(0))
        self.assertNotIn('line two', self.text(0))
        self.assertIn("+  'slots.c',", self.text(1))
        self.assertIn('+line two', self.text(1))
        self.assertIn('new file mode 100755', self.text(1))

    def test_message_and_cover_letter(self):
        self.make()
        self.assertRegex(self.text(0), r'Subject: \[PATCH 1/2\] accel: plan\n\nWhy.\n')
        cover = (self.series / '0000-cover-letter').read_text()
        self.assertRegex(cover, r'(?s)\[PATCH 0/2\] Two topics\n\nFor QEMU 10.0.13.\n')

    def test_same_again(self):
        self.make()
        first = [p.read_text() for p in patches(self.series)]
        self.make()
        self.assertEqual(first, [p.read_text() for p in patches(self.series)])

    def test_quilt_gives_the_tree(self):
        self.make()
        quilt = self.series / 'debian/patches'
        tree = self.top / 'tree'
        shutil.copytree(self.build / 'src/pristine', tree)
        for name in (quilt / 'series').read_text().split():
            subprocess.run(['patch', '-s', '-p1', '-F0', '-d', str(tree), '-i', str(quilt / name)],
                           check=True)
        subprocess.run(['diff', '-r', str(tree), str(self.tree)], check=True)

    def test_file_without_a_topic_is_named(self):
        self.write(self.repo / 'backends/ours.c', '')
        self.assertIn('names no patch for backends/ours.c', self.error())

    def test_line_without_a_topic_is_named(self):
        self.write(self.repo / 'packaging/series/2-rest', 'accel: the rest\n\nFiles:\n'
                   'accel/kvm/slots.c\naccel/kvm/kvm-all.c\naccel/kvm/meson.build lines nothing\n')
        self.assertIn("names no patch for accel/kvm/meson.build: 'slots.c',", self.error())

    def test_leftover_is_named(self):
        self.write(self.repo / 'packaging/series/2-rest',
                   TOPICS['2-rest'] + 'accel/kvm/gone.c\n')
        self.assertIn('2-rest lists accel/kvm/gone.c, and there is no such file', self.error())

    def test_file_of_another_base_is_no_leftover(self):
        self.write(self.repo / 'base/10.2/accel/kvm/newer.c', '')
        self.write(self.repo / 'packaging/series/3-newer', 'a: b\n\nFiles:\naccel/kvm/newer.c\n')
        self.make()
        self.assertEqual(len(patches(self.series)), 2)

    def test_malformed_topic_is_named(self):
        self.write(self.repo / 'packaging/series/3-bad', 'a: b\n\nFiles:\na.c hunk x\n')
        self.assertIn('"a.c hunk x" is not PATH', self.error())


class ThisBuildTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.source = Path(sys.argv[1]).resolve() / 'src'
        cls.top = Path(tempfile.mkdtemp(prefix='series-test.'))
        cls.addClassCleanup(shutil.rmtree, cls.top)
        cls.made = subprocess.run([sys.executable, str(repository.SCRIPTS / 'series'), '--build',
                                   str(cls.source.parent), '--output', str(cls.top / 'series')],
                                  text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def setUp(self):
        self.assertEqual((self.made.returncode, self.made.stderr), (0, ''))

    def test_since_is_no_later_qemu(self):
        """What this QEMU has, it has at least since its own series."""
        source = self.source
        series = [int(n) for n in (source / 'pristine/VERSION').read_text().split('.')[:2]]
        found = []
        for name in json.loads((source / 'overlay.json').read_text()):
            if name.startswith('qapi/'):
                before = source / 'pristine' / name
                old = before.read_text().splitlines() if before.exists() else []
                new = (source / 'qemu' / name).read_text().splitlines()
                found += re.findall(r'^\+.*\bsince:? (\d+)\.(\d+)',
                                    '\n'.join(difflib.unified_diff(old, new, n=0)),
                                    re.IGNORECASE | re.MULTILINE)
        self.assertTrue(found)
        for since in found:
            self.assertLessEqual([int(n) for n in since], series)

    def test_git_am_gives_the_overlaid_tree(self):
        """Exactly, from QEMU's files as they came."""
        source = self.source
        # Of QEMU's ten thousand files, those that the overlay edits
        overlaid = json.loads((source / 'overlay.json').read_text())
        tree = self.top / 'tree'
        tree.mkdir()
        for name in overlaid:
            if (source / 'pristine' / name).exists():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / 'pristine' / name, tree / name)
        git(tree, 'init', '-q')
        git(tree, 'add', '-Af')
        git(tree, 'commit', '-q', '-m', 'pristine')
        git(tree, 'am', '-q', '--whitespace=nowarn', *patches(self.top / 'series'))
        self.assertEqual(sorted(git(tree, 'ls-files').split()), sorted(overlaid))
        for name in overlaid:
            ours, theirs = tree / name, source / 'qemu' / name
            self.assertEqual(ours.read_bytes(), theirs.read_bytes(), name)
            self.assertEqual(os.access(ours, os.X_OK), os.access(theirs, os.X_OK), name)

    def test_patches_are_as_refresh_writes_them(self):
        """So that the next edit of a file shows nothing but that edit."""
        build = self.source.parent
        version = (self.source / 'pristine/VERSION').read_text().strip()
        base = bases.of_tree(self.source / 'pristine')
        if f':{version}+' not in base.version:
            self.skipTest(f'the patches have the lines of {base.version}')
        old = []
        for name, (patch, *more) in overlay.sources(build).items():
            # A patch for all bases has the lines of the default one; one of a file of ours would
            # have to be refreshed with each edit of that
            own = patch.is_relative_to(overlay.own_base(build))
            if patch.suffix != '.patch' or not own and base.series != bases.default().series:
                continue
            self.assertEqual(more, [])
            diff = overlay.difference(name, self.source / 'pristine' / name,
                                      self.source / 'qemu' / name)
            if not patch.read_bytes().endswith(b'\n' + diff):
                old.append(str(overlay.shown(patch)))
        self.assertEqual(old, [])

    def test_checkpatch_finds_no_error(self):
        for patch in patches(self.top / 'series'):
            said = subprocess.run([str(self.source / 'qemu/scripts/checkpatch.pl'), '-q',
                                   '--no-signoff', str(patch)], cwd=self.source / 'qemu',
                                  text=True, stdout=subprocess.PIPE).stdout
            errors = [e for e in said.split('\n\n') if e.startswith('ERROR')]
            self.assertEqual(errors, [], patch.name)


if __name__ == '__main__':
    tap.main()
