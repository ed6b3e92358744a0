#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run one of QEMU's own qtests, which start KVM, with its RAM on a guest_memfd.

usage: qemu-test.py BUILD/qemu PROGRAM [CASE...]
Without a CASE (of migration-test e.g. precopy/tcp/plain) all of them run, for an hour and
more where KVM emulates SeaBIOS. A case passes if it does what it does with QEMU's default
RAM, or if QEMU refuses by our words: what needs userfaultfd, or a machine without KVM.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parents[2] / d) for d in ('tests/nested', 'scripts')]
import entry  # noqa: E402 pylint: disable=wrong-import-position
import kvm  # noqa: E402 pylint: disable=wrong-import-position
REFUSED = {"is a guest_memfd, which this kernel's userfaultfd does not": 'it needs userfaultfd',
           'guest_memfd needs KVM, which is not in use': 'it does not use KVM'}
OURS = HERE / 'qemu-system-x86_64'
DEFAULT = './qemu-system-x86_64'
TIME_LIMIT = 600


class Test:
    """A program in a directory of QEMU's build, and the cases with this prefix."""

    def __init__(self, build, program):
        self.build, self.program = build, program
        self.options = ['--full'] if program == 'migration-test' else []
        # What its cases are called is not always what it is called
        self.cases = [line for line in self.run(DEFAULT, '-l').stdout.splitlines()
                      if line.startswith('/')]

    def run(self, qemu, *args):
        env = dict(os.environ, QTEST_QEMU_BINARY=str(qemu), QTEST_QEMU_IMG='./qemu-img',
                   PYTHON=sys.executable)
        return subprocess.run([f'tests/qtest/{self.program}', *self.options, *args],
                              cwd=self.build, env=env, text=True, errors='replace',
                              timeout=TIME_LIMIT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def passes(self, qemu, case):
        """Whether the case does, and what was said."""
        try:
            run = self.run(qemu, '--tap', '-p', case)
        except subprocess.TimeoutExpired:
            return False, f'no end after {TIME_LIMIT} s'
        return run.returncode == 0 and '\nok ' in run.stdout, run.stdout

    def verdict(self, case):
        """What TAP says of a case."""
        passed, said = self.passes(OURS, case)
        if not passed:
            for words, reason in REFUSED.items():
                if words in said:
                    return f'ok - {case}: refused, as {reason}'
            if not self.passes(DEFAULT, case)[0]:
                return f'ok - {case}: fails with any RAM'
            print('\n'.join('# ' + line for line in said.splitlines()[-20:]))
            return f'not ok - {case}'
        skip = [line for line in said.splitlines() if '# SKIP' in line]
        return f'ok - {case}' + (' # SKIP ' + skip[0].partition('# SKIP')[2].strip()
                                 if skip else '')


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.split('\n\n', maxsplit=1)[1])
    build, program, *wanted = sys.argv[1:]
    kvm.ensure(Path(build).resolve().parent, program)
    test = Test(build, program)
    cases = [case for case in test.cases
             if not wanted or any(case.endswith(f'/{name}') for name in wanted)]
    if not cases:
        sys.exit(f'error: {program} has the cases {" ".join(test.cases)}')
    print(f'1..{len(cases)}')
    for case in cases:
        print(test.verdict(case), flush=True)


if __name__ == '__main__':
    entry.run(main)
