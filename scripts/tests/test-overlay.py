#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test overlay.py, refresh-patch and qemu-source.py on a tree of three files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import repository
import tap
from repository import CLEAN, KVM_ALL, PATCH, SCRIPTS

sys.path.append(str(SCRIPTS))
import overlay

# What needs no entry.py to tell that a program is missing
OTHERS = {
    # ... as it runs none
    'scripts/terminal-picture',
    # ... as it has to do without our other files
    'contrib/guest-memfd/guest-memfd-host-check', 'contrib/guest-memfd/guest-memfd-top',
    'contrib/guest-memfd/guest-memory-peer', 'tests/packages/guest.py',
    # ... as that is the result of a case, and the next one runs
    'tests/nested/cases.py'}


class OverlayTest(repository.TestCase):
    def test_own_file_is_copied(self):
        self.write(self.repo / 'backends/ours.c', 'ours\n')
        self.overlay()
        self.assertEqual((self.tree / 'backends/ours.c').read_text(), 'ours\n')

    def test_patch_is_applied(self):
        self.patch()
        self.overlay()
        self.assertEqual(self.kvm_all(), KVM_ALL.replace('line 2', 'line two'))

    def test_patch_at_the_top_is_applied(self):
        self.write(self.repo / 'VERSION.patch',
                   '--- a/VERSION\n+++ b/VERSION\n@@ -1 +1 @@\n-10.0.13\n+10.0.13-g\n')
        self.overlay()
        self.assertEqual((self.tree / 'VERSION').read_text(), '10.0.13-g\n')

    def test_our_directories_and_top_level_files_stay_out(self):
        for name in 'README.md', 'bench/run', 'tests/guest-memfd/console.py':
            self.write(self.repo / name, 'ours\n')
        self.overlay()
        for name in ('README.md', 'bench', 'scripts', 'base', 'build', 'tests'):
            self.assertFalse((self.tree / name).exists(), name)

    def test_what_git_ignores_stays_out(self):
        subprocess.run(['git', 'init', '-q', str(self.repo)], check=True)
        self.write(self.repo / '.gitignore', 'build\n*.log\n')
        self.write(self.repo / 'accel/a.log', '')
        self.write(self.repo / 'accel/untracked.c', '')
        self.overlay()
        self.assertFalse((self.tree / 'accel/a.log').exists())
        self.assertTrue((self.tree / 'accel/untracked.c').exists())

    def test_checkout_without_git_installed(self):
        subprocess.run(['git', 'init', '-q', str(self.repo)], check=True)
        self.write(self.repo / 'accel/ours.c', '')
        self.patch()
        result = self.run_script('overlay.py', self.build, PATH=self.only('patch'))
        self.assertEqual((result.returncode, result.stderr), (0, ''))
        self.assertTrue((self.tree / 'accel/ours.c').exists())
        self.assertFalse((self.tree / 'build').exists())

    def test_missing_program_is_named_in_one_sentence(self):
        self.patch()
        for program, script, *args in (
                ('patch', 'overlay.py', self.build),
                ('diff', 'refresh-patch', 'VERSION'),
                ('cp', 'qemu-source.py', '--source', self.top / 'upstream', self.top / 'b'),
                ('ninja', 'build-qemu.py', self.options(), self.top / 'stamp'),
                ('dpkg-deb', 'debs.py', self.archive(), 'trixie', 'x86_64', self.top / 'root',
                 'hello')):
            have = {'ninja': ['cp', 'patch'], 'diff': ['dirname', 'readlink']}.get(program, [])
            result = self.run_script(script, *args, PATH=self.only(*have))
            self.assertEqual(result.returncode, 1, script)
            self.assertRegex(result.stderr, f'^(#.*\n)?error: cannot run {program}, .*\n$')
            shutil.rmtree(self.top / 'bin')

    def test_missing_program_of_a_shell_script_is_no_traceback(self):
        code = ("import entry, subprocess\n"
                "entry.run(lambda: subprocess.run(['sh', '-c', 'xyz'], check=True))")
        result = subprocess.run([sys.executable, '-c', code], cwd=SCRIPTS, text=True, check=False,
                                stderr=subprocess.PIPE)
        self.assertRegex(result.stderr, '^sh: .*xyz.*\nerror: sh cannot run what it needs.*\n$')

    def test_scripts_start_by_entry(self):
        """... or as tests, in which it is the result of a case."""
        for path in overlay.listing(SCRIPTS.parent / 'build'):
            name = str(path.relative_to(SCRIPTS.parent))
            text = path.read_text(errors='replace') if path.is_file() else ''
            start = text.partition("\nif __name__ == '__main__':\n")[2]
            if (start or text.startswith('#!/usr/bin/env python3')) and name not in OTHERS:
                self.assertRegex(start, r'entry\.run\(main|(tap|runner_of_tests)\.main\(', name)

    def options(self):
        """Options for build-qemu.py, whose QEMU needs no configure."""
        self.write(self.tree / 'configure', '#!/bin/sh\n')
        (self.tree / 'configure').chmod(0o755)
        self.write(self.build / 'options.json', json.dumps(
            {'base': '', 'source': str(self.top / 'upstream'), 'configure': '', 'targets': '',
             'datadir': '/', 'firmware': ''}))
        return self.build / 'options.json'

    def archive(self):
        """A build directory for debs.py, where a false APT has fetched a package."""
        self.write(self.repo / 'scripts/private-apt', '#!/bin/sh\nfor i; do case $i in '
                   '*archives=*) : >"${i#*archives=}/hello.deb" ;; esac; done\n')
        self.write(self.build / 'nested/apt/trixie-amd64/fetched', '')
        return self.build

    def test_unchanged_files_keep_their_time(self):
        self.write(self.repo / 'accel/kvm/one.c', '1\n')
        self.write(self.repo / 'accel/kvm/two.c', '2\n')
        self.patch()
        self.overlay()
        names = [self.tree / 'accel/kvm' / n for n in ('one.c', 'two.c', 'kvm-all.c')]
        for name in names:
            os.utime(name, (1, 1))
        self.write(self.repo / 'accel/kvm/two.c', 'two\n')
        self.overlay()
        self.assertEqual([n.stat().st_mtime == 1 for n in names], [True, False, True])

    def test_removing_everything_restores_the_pristine_tree(self):
        self.write(self.repo / 'accel/kvm/one.c', '1\n')
        self.patch()
        self.overlay()
        shutil.rmtree(self.repo / 'accel')
        self.overlay()
        self.assertEqual(self.kvm_all(), KVM_ALL)
        self.assertFalse((self.tree / 'accel/kvm/one.c').exists())

    def test_broken_patch_names_patch_file_and_base(self):
        self.patch(PATCH.replace('-line 2', '-line 2 of another version'))
        error = self.overlay_error()
        self.assertIn('accel/kvm/kvm-all.c.patch does not apply to accel/kvm/kvm-all.c '
                      'of QEMU 10.0.13', error)

    def test_broken_patch_leaves_the_tree_alone(self):
        self.patch(PATCH.replace('-line 2', '-line 2 of another version'))
        self.write(self.repo / 'accel/a.c', '')
        self.overlay_error()
        self.assertEqual(self.kvm_all(), KVM_ALL)
        self.assertFalse((self.tree / 'accel/a.c').exists())

    def test_patch_of_no_file_is_an_error(self):
        self.write(self.repo / 'accel/none.c.patch', PATCH)
        self.assertIn('accel/none.c.patch does not apply', self.overlay_error())

    def test_own_file_must_not_hide_one_of_qemu(self):
        self.write(self.repo / 'accel/kvm/kvm-all.c', 'ours\n')
        self.assertIn('accel/kvm/kvm-all.c.patch', self.overlay_error())
        self.assertEqual(self.kvm_all(), KVM_ALL)

    def test_edit_in_the_tree_is_not_overwritten(self):
        self.patch()
        self.overlay()
        self.write(self.tree / 'accel/kvm/kvm-all.c', 'edited\n')
        self.patch(PATCH.replace('line two', 'line zwei'))
        self.assertIn('scripts/refresh-patch accel/kvm/kvm-all.c', self.overlay_error())
        self.assertEqual(self.kvm_all(), 'edited\n')

    def test_edit_before_the_first_patch_is_not_overwritten(self):
        self.write(self.tree / 'accel/kvm/kvm-all.c', 'edited\n')
        self.patch()
        self.overlay_error()
        self.assertEqual(self.kvm_all(), 'edited\n')

    # What is for one base

    def variant(self, text):
        return PATCH.replace('+line two', f'+{text}')

    def test_patch_of_the_base_takes_the_place_of_the_common_one(self):
        self.patch(PATCH.replace('-line 2', '-line 2 of the other base'))
        self.write(self.repo / 'base/10.0/accel/kvm/kvm-all.c.patch', self.variant('line II'))
        self.write(self.repo / 'base/10.2/accel/kvm/kvm-all.c.patch', self.variant('line zwei'))
        self.overlay()
        self.assertEqual(self.kvm_all(), KVM_ALL.replace('line 2', 'line II'))

    def test_file_of_the_base_takes_the_place_of_a_common_patch(self):
        self.write(self.repo / 'include/moved.h.patch', PATCH)
        self.write(self.repo / 'base/10.0/include/moved.h', '#include "old.h"\n')
        self.write(self.repo / 'base/10.2/include/newer.h', '')
        self.overlay()
        self.assertEqual((self.tree / 'include/moved.h').read_text(), '#include "old.h"\n')
        self.assertFalse((self.tree / 'include/newer.h').exists())
        self.assertFalse((self.tree / 'source').exists())

    def test_patch_of_the_base_changes_a_file_of_ours(self):
        self.own_file_with_variant()
        self.assertEqual(self.ours(), KVM_ALL.replace('line 2', 'line two'))

    def own_file_with_variant(self):
        self.write(self.repo / 'accel/ours.c', KVM_ALL)
        self.write(self.repo / 'base/10.0/accel/ours.c.patch', PATCH)
        self.overlay()

    def ours(self):
        return (self.tree / 'accel/ours.c').read_text()

    def test_broken_patch_of_the_base_is_named(self):
        self.write(self.repo / 'base/10.0/accel/kvm/kvm-all.c.patch',
                   PATCH.replace('-line 2', '-line 2 of another version'))
        self.assertIn('base/10.0/accel/kvm/kvm-all.c.patch does not apply',
                      self.overlay_error())

    def test_refresh_writes_the_patch_that_was_applied(self):
        self.patch()
        self.write(self.repo / 'base/10.0/accel/kvm/kvm-all.c.patch', self.variant('line II'))
        self.overlay()
        self.write(self.tree / 'accel/kvm/kvm-all.c', KVM_ALL.replace('line 2', 'line III'))
        self.run_script('refresh-patch', 'accel/kvm/kvm-all.c')
        self.assertEqual((self.repo / 'accel/kvm/kvm-all.c.patch').read_text(), PATCH)
        self.assertEqual((self.repo / 'base/10.0/accel/kvm/kvm-all.c.patch').read_text(),
                         self.variant('line III'))

    def test_refresh_makes_a_variant_on_request(self):
        self.patch()
        self.overlay()
        edited = KVM_ALL.replace('line 2', 'line II')
        self.write(self.tree / 'accel/kvm/kvm-all.c', edited)
        self.run_script('refresh-patch', '--variant', '-m', 'Here it is II.',
                        'accel/kvm/kvm-all.c')
        self.assertEqual((self.repo / 'accel/kvm/kvm-all.c.patch').read_text(), PATCH)
        self.overlay()
        self.assertEqual(self.kvm_all(), edited)

    def test_refresh_takes_a_file_of_ours_back_without_the_variant(self):
        self.own_file_with_variant()
        self.write(self.tree / 'accel/ours.c', self.ours().replace('line 8', 'line eight'))
        self.run_script('refresh-patch', 'accel/ours.c')
        self.assertEqual((self.repo / 'accel/ours.c').read_text(),
                         KVM_ALL.replace('line 8', 'line eight'))
        self.overlay()

    def test_source_of_a_known_series_needs_its_base(self):
        self.write(self.top / 'upstream/VERSION', '10.2.1\n')
        result = self.run_script('qemu-source.py', '--source', self.top / 'upstream',
                                 self.top / 'b')
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r'^error: .* is QEMU 10.2 .*: say BASE=10.2\n$')
        result = self.run_script('qemu-source.py', '--base', '10.2', '--source',
                                 self.top / 'upstream', self.top / 'b')
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_source_of_an_unknown_series_is_refused(self):
        self.write(self.top / 'upstream/VERSION', '9.2.4\n')
        result = self.run_script('qemu-source.py', '--source', self.top / 'upstream',
                                 self.top / 'b')
        self.assertEqual((result.returncode, result.stderr),
                         (1, 'error: this overlay is not made for QEMU 9.2, but for: '
                             '10.0, 10.2\n'))

    def test_build_directory_of_a_base(self):
        for env, directory in (
                ({}, 'build'), ({'BASE': '10.0'}, 'build'), ({'BASE': '10.2'}, 'build-10.2'),
                ({'QEMU_SRC': '/x/qemu-10.2.0.tar.xz'}, 'build-10.2'),
                ({'QEMU_SRC': str(self.top / 'upstream')}, 'build')):
            result = subprocess.run([str(self.repo / 'scripts/build-dir')], text=True,
                                    stdout=subprocess.PIPE, env=CLEAN | env)
            self.assertEqual(result.stdout, directory + '\n', env)
        result = subprocess.run([str(self.repo / 'scripts/build-dir')], text=True,
                                stderr=subprocess.PIPE, env=CLEAN | {'BASE': '11.0'})
        self.assertEqual((result.returncode, result.stderr),
                         (1, 'error: this overlay is not made for QEMU 11.0, but for: '
                             '10.0, 10.2\n'))

    # Edits that are taken in

    def test_refreshed_patch_keeps_its_head_and_reproduces_the_edit(self):
        self.patch()
        self.overlay()
        edited = self.kvm_all().replace('line 8', 'line eight')
        self.write(self.tree / 'accel/kvm/kvm-all.c', edited)
        self.run_script('refresh-patch', 'accel/kvm/kvm-all.c')
        patch = (self.repo / 'accel/kvm/kvm-all.c.patch').read_text()
        self.assertTrue(patch.startswith(PATCH.rstrip('\n')), patch)
        (self.tree / 'accel/kvm/kvm-all.c').unlink()
        self.overlay()
        self.assertEqual(self.kvm_all(), edited)

    def test_new_patch_needs_a_sentence(self):
        self.write(self.tree / 'accel/kvm/kvm-all.c', KVM_ALL + 'more\n')
        result = self.run_script('refresh-patch', 'accel/kvm/kvm-all.c')
        self.assertEqual(result.returncode, 1)
        self.assertIn('-m', result.stderr)
        self.run_script('refresh-patch', '-m', 'More is needed.', 'accel/kvm/kvm-all.c')
        self.overlay()
        patch = (self.repo / 'accel/kvm/kvm-all.c.patch').read_text()
        self.assertTrue(patch.startswith('More is needed.\n\n--- a/accel/kvm/kvm-all.c\n'))

    def test_refresh_copies_our_own_file_back(self):
        self.write(self.repo / 'accel/ours.c', 'ours\n')
        self.overlay()
        self.write(self.tree / 'accel/ours.c', 'edited\n')
        self.run_script('refresh-patch', 'build/src/qemu/accel/ours.c')
        self.assertEqual((self.repo / 'accel/ours.c').read_text(), 'edited\n')
        self.overlay()

    def test_refresh_loses_no_change_made_here(self):
        self.write(self.repo / 'accel/ours.c', 'ours\n')
        self.patch()
        self.overlay()
        for name, text in (('accel/ours.c', 'changed here\n'),
                           ('accel/kvm/kvm-all.c.patch', PATCH.replace('two', 'zwei'))):
            self.write(self.repo / name, text)
            self.write(self.tree / name.removesuffix('.patch'), 'edited there\n')
            result = self.run_script('refresh-patch', name)
            self.assertEqual(result.returncode, 1)
            self.assertIn('changed here as well', result.stderr)
            self.assertEqual((self.repo / name).read_text(), text)

    def test_refresh_replaces_a_patch_that_no_longer_applies(self):
        self.patch(PATCH.replace('-line 2', '-line 2 of another version'))
        self.write(self.tree / 'accel/kvm/kvm-all.c', KVM_ALL.replace('line 2', 'line II'))
        self.overlay_error()
        self.run_script('refresh-patch', 'accel/kvm/kvm-all.c')
        self.overlay()
        self.assertIn('line II', self.kvm_all())

    def test_source_that_is_no_qemu_is_refused(self):
        self.write(self.top / 'other/README', '')
        result = self.run_script('qemu-source.py', '--source', self.top / 'other', self.build)
        self.assertEqual(result.returncode, 1)
        self.assertIn('is no QEMU source', result.stderr)

    def test_missing_source_is_named(self):
        result = self.run_script('qemu-source.py', '--source', '/nonexistent', self.build)
        self.assertEqual(result.returncode, 1)
        self.assertIn('QEMU_SRC=/nonexistent', result.stderr)

    def test_tarball_gives_the_same_tree(self):
        tarball = self.top / 'qemu.tar.gz'
        subprocess.run(['tar', '-czf', tarball, '-C', self.top, 'upstream'], check=True)
        result = self.run_script('qemu-source.py', '--source', tarball, self.build)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(self.kvm_all(), KVM_ALL)


if __name__ == '__main__':
    tap.main()
