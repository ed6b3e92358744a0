#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test how check.py counts, on a project whose tests end in every way."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import tap

CHECK = Path(__file__).resolve().parent.parent / 'check.py'
PROJECT = '''
project('ends')
python = import('python').find_installation()
foreach end : ['pass', 'skip', 'none', 'fail', 'crash', 'hang', 'early', 'refuse', 'first',
               'assert']
  test('a/' + end, python, args: [files('end.py'), end], protocol: 'tap',
       suite: end == 'pass' ? 'ends-well' : 'ends-otherwise', timeout: 2)
endforeach
test('by-name', python, args: [files('end.py'), 'pass'], protocol: 'tap', suite: 'long')
add_test_setup('default', is_default: true, exclude_suites: ['long'])
add_test_setup('all')
'''
END = '''
import os, sys, time
print({'pass': '1..2\\nok 1 a\\nok 2 b', 'skip': '1..2\\nok 1 a\\nok 2 b # SKIP no',
       'none': '1..0 # SKIP no', 'fail': '1..2\\n# well\\nok 1 a\\n# broken\\nnot ok 2 b',
       'crash': '1..2\\n# well\\nok 1 a\\n# began',
       'hang': '1..2\\nok 1 a', 'early': '1..2\\nok 1 a', 'refuse': '',
       'first': '1..5\\nok 1 a', 'assert': '1..5\\nok 1 a\\nnot ok 2 b\\nBail out!'
       }[sys.argv[1]], flush=True)
if sys.argv[1] in ('crash', 'first', 'assert'):
    os.abort()
if sys.argv[1] == 'hang':
    time.sleep(60)
sys.exit(sys.argv[1] in ('fail', 'refuse'))
'''


class CheckTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.top = Path(tempfile.mkdtemp(prefix='check-test.'))
        cls.addClassCleanup(shutil.rmtree, cls.top)
        (cls.top / 'meson.build').write_text(PROJECT)
        (cls.top / 'end.py').write_text(END)
        subprocess.run([sys.executable, '-m', 'mesonbuild.mesonmain', 'setup',
                        str(cls.top / 'build'), str(cls.top)],
                       check=True, stdout=subprocess.DEVNULL)

    def check(self, *names, **env):
        result = subprocess.run([sys.executable, str(CHECK), str(self.top / 'build'), *names],
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env=os.environ | {'CHECK_NO_SKIP': '0'} | env)
        return result.stdout.splitlines(), result.returncode

    def ends(self, expected, code, *names, **env):
        lines, returncode = self.check(*names, **env)
        self.assertEqual((lines[-1], returncode), (expected, code), '\n'.join(lines))

    def test_cases_are_counted_not_programs(self):
        self.ends('2 passed, 0 failed, 0 skipped', 0, 'pass')

    def test_skipped_case_passes_the_run(self):
        self.ends('1 passed, 0 failed, 1 skipped', 0, 'skip')

    def test_skipped_case_fails_a_strict_run(self):
        self.ends('1 passed, 0 failed, 1 skipped', 1, 'skip', CHECK_NO_SKIP='1')

    def test_run_without_a_passed_case_fails(self):
        self.ends('0 passed, 0 failed, 1 skipped', 1, 'none')

    def test_failed_case_counts_once(self):
        self.ends('1 passed, 1 failed, 0 skipped', 1, 'fail')

    def test_reason_of_a_failed_case_is_told(self):
        lines, _ = self.check('fail')
        said = lines.index('ends:ends-otherwise / a/fail says:')
        self.assertEqual(lines[said + 1:said + 3], ['  # broken', '  not ok 2 b'])

    def test_last_words_of_a_crash_are_told(self):
        lines, _ = self.check('crash')
        said = lines.index('ends:ends-otherwise / a/crash says:')
        self.assertEqual(lines[said + 1], '  # began')

    def test_crash_counts_as_failed(self):
        self.ends('1 passed, 1 failed, 0 skipped', 1, 'crash')

    def test_time_limit_counts_as_failed(self):
        self.ends('1 passed, 1 failed, 0 skipped', 1, 'hang')

    def test_missing_cases_count_as_failed(self):
        self.ends('1 passed, 1 failed, 0 skipped', 1, 'early')

    def test_crash_does_not_hide_cases_after_it(self):
        self.ends('1 passed, 1 failed, 0 skipped, 3 not run', 1, 'first')

    def test_cases_after_a_failed_assertion_are_not_run(self):
        self.ends('1 passed, 1 failed, 0 skipped, 3 not run', 1, 'assert')

    def test_program_that_says_nothing_counts_as_failed(self):
        self.ends('0 passed, 1 failed, 0 skipped', 1, 'refuse')

    def test_suite_test_and_end_of_name_select(self):
        self.ends('4 passed, 1 failed, 1 skipped', 1, 'ends-well', 'a/skip', 'fail')

    def test_long_test_runs_when_named(self):
        self.ends('2 passed, 0 failed, 0 skipped', 0, 'by-name')
        self.ends('2 passed, 0 failed, 0 skipped', 0, 'long')

    def test_unknown_name_lists_what_there_is(self):
        lines, code = self.check('nonsense')
        self.assertEqual(code, 1)
        self.assertIn('error: no test or suite nonsense; there are: a/assert, a/crash, ', lines[0])


if __name__ == '__main__':
    tap.main()
