#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run QEMU's own migration-test with its RAM on a guest_memfd.

usage: migration-test.py BUILD/qemu [CASE...]
Without a CASE (e.g. precopy/tcp/plain) all of them run, for an hour and more where KVM
emulates SeaBIOS. A case that needs userfaultfd passes when QEMU refuses it by our words.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / 'nested'))
import kvm  # noqa: E402 pylint: disable=wrong-import-position
PREFIX = '/x86_64/migration/'
REFUSED = "is a guest_memfd, which this kernel's userfaultfd does not"
TIME_LIMIT = 600


def migration_test(build, *args):
    env = dict(os.environ, QTEST_QEMU_BINARY=str(HERE / 'qemu-system-x86_64'),
               QTEST_QEMU_IMG='./qemu-img', PYTHON=sys.executable)
    return subprocess.run(['tests/qtest/migration-test', '--full', *args], cwd=build, env=env,
                          text=True, errors='replace', timeout=TIME_LIMIT,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def verdict(build, case):
    """What TAP says of a case."""
    try:
        run = migration_test(build, '--tap', '-p', PREFIX + case)
    except subprocess.TimeoutExpired:
        return f'not ok - {case} (no end after {TIME_LIMIT} s)'
    if run.returncode and REFUSED in run.stdout:
        return f'ok - {case}: refused, as it needs userfaultfd'
    if run.returncode or '\nok ' not in run.stdout:
        print('\n'.join('# ' + line for line in run.stdout.splitlines()[-20:]))
        return f'not ok - {case}'
    skip = [line for line in run.stdout.splitlines() if '# SKIP' in line]
    return f'ok - {case}' + (' # SKIP ' + skip[0].partition('# SKIP')[2].strip() if skip else '')


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.split('\n\n', maxsplit=1)[1])
    build, *cases = sys.argv[1:]
    kvm.ensure(Path(build).resolve().parent, 'migration-test')
    if not cases:
        listed = migration_test(build, '-l').stdout.splitlines()
        cases = [line[len(PREFIX):] for line in listed if line.startswith(PREFIX)]
    print(f'1..{len(cases)}')
    for case in cases:
        print(verdict(build, case), flush=True)


if __name__ == '__main__':
    main()
