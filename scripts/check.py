#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run our tests with Meson and count their cases.

usage: check.py BUILD [SUITE|TEST...]
The last line says how many cases passed, failed and were skipped. A test that fails
without naming a case (it crashed, or ran into its time limit) counts as one failed case;
what it had still to do is "not run".
With CHECK_NO_SKIP=1 a skipped case is a failure of the run, but not a test that an
emulated KVM host is too slow for: each of these counts as one skipped case.
"""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import entry

sys.path.append(str(Path(__file__).resolve().parents[1] / 'tests/nested'))
import kvm  # noqa: E402 pylint: disable=wrong-import-position

BAD = ('failure', 'error')
GOOD = ('OK', 'SKIP', 'EXPECTEDFAIL')
# Suites that an emulated KVM host is spared: "again" has run there already; "heavy" takes
# too long there, and counts as skipped
SPARED = ('again', 'heavy')
# Lines of what a test says before a case fails that are worth telling again
REMARKS = 12


def select(build, names):
    """Meson's arguments for the tests that the names mean: suites, tests, or the last part
    of a test's name; and the names of those that an emulated KVM host is too slow for.
    """
    tests = json.loads((build / 'meson-info/intro-tests.json').read_text())
    called = {}
    for test in tests:
        suites = [s.rpartition(':')[2] for s in test['suite']]
        for alias in {test['name'], test['name'].rpartition('/')[2], *suites}:
            called.setdefault(alias, set()).add(test['name'])
    unknown = [n for n in names if n not in called]
    if unknown:
        sys.exit(f'error: no test or suite {unknown[0]}; there are: {", ".join(sorted(called))}'
                 '\n(scripts/dev runs any test of QEMU itself)')
    chosen = {test for name in names for test in called[name]}
    if not kvm.reason_not_here():
        return sorted(chosen), []
    heavy = called.get('heavy', set())
    if not names:
        return [word for suite in SPARED for word in ('--no-suite', suite)], sorted(heavy)
    # ... unless it is asked for by its name
    asked = {test for name in names for test in called[name] if called[name] == {test}}
    heavy = heavy & chosen - asked
    return sorted(chosen - heavy - (called.get('again', set()) - asked)), sorted(heavy)


def missing(output):
    """Cases that a test's plan has and its results have not."""
    plan = re.search(r'^1\.\.(\d+)', output, re.MULTILINE)
    done = re.findall(r'^(?:not )?ok\b', output, re.MULTILINE)
    return max(0, int(plan[1]) - len(done)) if plan else 0


def last_words(output):
    """What a test says of each case that fails: the remarks before its "not ok"; and the
    last ones of a test that ends in the middle."""
    words, remarks = [], []
    for line in output.splitlines():
        if line.startswith('not ok'):
            words += [*remarks, line]
        if re.match(r'(not )?ok\b', line):
            remarks = []
        else:
            remarks = [*remarks, line][-REMARKS:]
    return words + remarks


def count(log):
    """Cases passed and skipped, the names of those that failed, by test how many of its cases
    did not run, and what the tests that failed have said of it."""
    passed = skipped = 0
    failed = []
    not_run = {}
    said = {}
    blamed = set()
    for suite in ET.parse(f'{log}.junit.xml').iter('testsuite'):
        for case in suite.iter('testcase'):
            # A test's cases form a suite PROJECT.TEST; a test without any is a case itself.
            test = suite.get('name').partition('.')[2]
            name = f'{test} {case.get("name")}' if test else case.get('name')
            if any(case.find(tag) is not None for tag in BAD):
                failed.append(name)
                blamed.add(test or name)
            elif case.find('skipped') is not None:
                skipped += 1
            else:
                passed += 1
    for line in Path(f'{log}.json').read_text().splitlines():
        test = json.loads(line)
        left = missing(test.get('stdout', ''))
        if test['result'] not in GOOD and test['name'] not in blamed:
            failed.append(f'{test["name"]} ({test["result"]})')
            # The one that it was at
            left -= 1
        if left > 0:
            not_run[test['name']] = left
        if test['result'] not in GOOD:
            said[test['name']] = (last_words(test.get('stdout', ''))
                                  + test.get('stderr', '').splitlines()[-REMARKS:])
    return passed, failed, skipped, not_run, said


def main():
    build = Path(sys.argv[1]).resolve()
    logs = build / 'meson-logs'
    for log in logs.glob('testlog*'):
        log.unlink()
    selected, heavy = select(build, sys.argv[2:])
    if not selected and heavy:
        sys.exit('error: on an emulated KVM host this takes long; name the tests to run them: '
                 + ', '.join(heavy))
    # What is named runs, also if it is long.
    setup, log = (['--setup', 'all'], logs / 'testlog-all') if sys.argv[2:] \
        else ([], logs / 'testlog')
    subprocess.run([sys.executable, '-m', 'mesonbuild.mesonmain', 'test', '-C', str(build),
                    '--print-errorlogs', *setup, *selected], check=False)
    if not Path(f'{log}.junit.xml').exists():
        sys.exit('error: Meson ran no test')
    passed, failed, skipped, not_run, said = count(log)
    bad = [f'FAILED {name}' for name in failed]
    bad += [f'NOT RUN {cases} cases of {name}' for name, cases in not_run.items()]
    for test, words in said.items():
        bad += [f'{test} says:', *(f'  {line}' for line in words if line.strip())]
    print(*bad, sep='\n', end='\n' * bool(bad))
    for name in heavy:
        print(f'SKIPPED {name}: an emulated KVM host takes too long; ./check '
              f'{name.rpartition("/")[2]} runs it')
    strict = os.environ.get('CHECK_NO_SKIP') == '1' and skipped
    skipped += len(heavy)
    # For .ci/run, which sums up over the bases
    (logs / 'count').write_text(f'{passed} {len(failed)} {skipped}\n')
    (logs / 'bad').write_text(''.join(f'{line}\n' for line in bad))
    print(f'{passed} passed, {len(failed)} failed, {skipped} skipped'
          + (f', {sum(not_run.values())} not run' if not_run else ''))
    sys.exit(1 if failed or not_run or not passed or strict else 0)


if __name__ == '__main__':
    entry.run(main)
