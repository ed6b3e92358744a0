#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test .ci/run, with a ./check, a demo and a fetch that only note how they were called."""

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import tap
from repository import CLEAN

REPO = Path(__file__).resolve().parents[2]
CHECK = '''logs=build${BASE:+-$BASE}/meson-logs
mkdir -p $logs
echo "check ${BASE:-} $CHECK_NO_SKIP $*"
'''
GREEN = 'echo "5 0 1" > $logs/count'
RED = 'echo "4 1 1" > $logs/count; echo "FAILED one ${BASE:-}" > $logs/bad; exit 1'
OTHER = 'test -n "${BASE:-}"'


class CITest(unittest.TestCase):
    def setUp(self):
        self.top = Path(tempfile.mkdtemp(prefix='ci-test.'))
        self.addCleanup(shutil.rmtree, self.top)
        for name in '.ci', 'scripts', 'base/10.0', 'base/10.2':
            (self.top / name).mkdir(parents=True)
        (self.top / 'base/default').symlink_to('10.0')
        shutil.copy(REPO / '.ci/run', self.top / '.ci/run')

    def script(self, name, text):
        (self.top / name).write_text(f'#!/bin/sh\n{text}\n')
        (self.top / name).chmod(0o755)

    def run_it(self, *args, fetch=0, check=GREEN, demo=0, deb='none', root=False):
        self.script('scripts/qemu-source.py', f'echo "fetch $*"; exit {fetch}')
        self.script('check', CHECK + check)
        self.script('demo', f'echo "demo $BASE $CHECK_KVM"; exit {demo}')
        self.script('scripts/dependencies', 'echo "depend $*"')
        self.script('scripts/deb', f'echo "deb $*"; test "$*" != "{deb}"')
        # Who is root can have packages tested
        self.script('id', f'echo {0 if root else 1000}')
        result = subprocess.run([str(self.top / '.ci/run'), *args], text=True,
                                env={**CLEAN, 'PATH': f'{self.top}:{CLEAN["PATH"]}'},
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return result.returncode, result.stdout

    def test_the_other_base_gets_a_part_of_the_tests(self):
        status, output = self.run_it()
        self.assertEqual(status, 0, output)
        self.assertRegex(output, r'^check  1 \n(.*\n)*fetch --base 10.2 build-10.2\n'
                                 r'check 10.2 1 unit .* guest-memfd-.*\ndemo 10.2 emulated\n')
        self.assertTrue(output.endswith('\n11 passed, 0 failed, 2 skipped\n'), output)

    def test_counts_of_an_earlier_run_do_not_count(self):
        self.run_it()
        _, output = self.run_it(fetch=3)
        self.assertTrue(output.endswith('\n5 passed, 0 failed, 1 skipped\n'), output)

    def test_mirror_that_has_lost_it_is_a_notice(self):
        status, output = self.run_it(fetch=3)
        self.assertEqual(status, 0, output)
        self.assertIn('notice: QEMU 10.2 is not tested, since the mirror has it no more', output)
        self.assertNotIn('check 10.2', output)

    def test_failure_of_any_fails(self):
        for case in ({'fetch': 1}, {'demo': 1}, {'check': f'if {OTHER}; then {RED}; fi; {GREEN}'},
                     {'check': f'if {OTHER}; then {GREEN}; else {RED}; fi'}):
            status, output = self.run_it(**case)
            self.assertEqual(status, 1, output)

    def test_demo_that_fails_is_a_case_that_fails(self):
        _, output = self.run_it(demo=1)
        self.assertTrue(output.endswith('\n10 passed, 1 failed, 2 skipped\n'), output)

    def test_default_that_fails_does_not_hide_the_other(self):
        _, output = self.run_it(check=f'if {OTHER}; then {GREEN}; else {RED}; fi')
        self.assertIn('check 10.2', output)
        self.assertTrue(output.endswith('All:\nFAILED one \n10 passed, 1 failed, 2 skipped\n'), output)

    def test_packages_are_made_and_tested(self):
        status, output = self.run_it(root=True)
        self.assertEqual(status, 0, output)
        self.assertRegex(output, r'\ndepend packages-depends\ndeb \ndeb --suite trixie\n'
                                 r'check  1 packages\n')
        self.assertTrue(output.endswith('\n18 passed, 0 failed, 3 skipped\n'), output)

    def test_packages_that_are_not_made_are_a_case_that_fails(self):
        status, output = self.run_it(root=True, deb='--suite trixie')
        self.assertEqual(status, 1, output)
        self.assertNotIn('check  1 packages', output)
        self.assertIn('check 10.2', output)
        self.assertTrue(output.endswith('All:\nFAILED scripts/deb --suite trixie\n'
                                        '12 passed, 1 failed, 2 skipped\n'), output)

    def test_who_is_not_root_tests_no_packages(self):
        _, output = self.run_it()
        self.assertIn('notice: the packages are not tested, since that needs root', output)

    def test_part_of_the_tests_is_for_the_default(self):
        status, output = self.run_it('unit')
        self.assertEqual((status, output), (0, 'check  1 unit\n'))


if __name__ == '__main__':
    tap.main()
