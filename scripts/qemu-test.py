#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run one test of QEMU's build, as QEMU's build would run it.

usage: qemu-test.py BUILD/qemu NAME [ARGUMENT...]
NAME is what `meson test --list` shows there, e.g. qtest-x86_64/guest-memfd-test; the
test's command and environment come from that build. ARGUMENTs go to the test, e.g.
-p /x86_64/guest-memfd to run a part. Our qtests run where KVM binds guest_memfds.
"""

import json
import os
import sys
from pathlib import Path

import entry

sys.path.append(str(Path(__file__).resolve().parents[1] / 'tests/nested'))
import kvm  # noqa: E402 pylint: disable=wrong-import-position


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.split('\n\n', maxsplit=1)[1])
    build, name, *extra = sys.argv[1:]
    tests = json.loads(Path(build, 'meson-info/intro-tests.json').read_text())
    for test in tests:
        if test['name'] == name:
            break
    else:
        alike = sorted({t['name'] for t in tests if name in t['name']})
        sys.exit(f"error: QEMU's build has no test {name}"
                 + (f'; did you mean {", ".join(alike[:8])}?' if alike else ''))
    command = [*test['cmd'], *extra]
    os.environ.update(test['env'])
    top = Path(build).resolve().parent
    os.chdir(test['workdir'] or build)
    if '/guest-memfd-' in name:
        kvm.ensure(top, name.rpartition('/')[2], command)
    sys.stdout.flush()
    os.execvp(command[0], command)


if __name__ == '__main__':
    entry.run(main)
