# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a test runs that needs a KVM which binds guest_memfds.

On this machine, if its own KVM does; else in a KVM host that is emulated on it. That has
this machine's files, and runs the same command: slower, but on a KVM as real. Decided here
alone; with CHECK_KVM=emulated it is the emulated host, with CHECK_KVM=own never.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import host

HOST_CHECK = Path(__file__).resolve().parents[2] / 'contrib/guest-memfd/guest-memfd-host-check'
INSIDE = 'GUEST_MEMFD_EMULATED_HOST'


def reason_not_here():
    """Why not on this machine's own KVM; None if there."""
    wish = os.environ.get('CHECK_KVM', '')
    if wish not in ('', 'own', 'emulated'):
        sys.exit(f'error: CHECK_KVM={wish}: it can be own or emulated')
    if wish:
        return 'CHECK_KVM=emulated' if wish == 'emulated' else None
    check = subprocess.run([sys.executable, HOST_CHECK, '--json'], text=True, check=False,
                           stdout=subprocess.PIPE)
    return json.loads(check.stdout)['verdict'] if check.returncode else None


def ensure(build, name, command=None, limit=0):
    """Return if KVM binds guest_memfds here. Else run the command, by default this program
    anew, in an emulated host, and end as it does. The host's log gets the name; it may run
    for so many seconds, if that is longer than it may anyway.
    """
    if INSIDE in os.environ:
        return
    reason = reason_not_here()
    if not reason:
        return
    print(f'# in an emulated KVM host, as here: {reason}', flush=True)
    os.environ[INSIDE] = 'yes'
    name = os.environ.get('CHECK_LOG', name)
    emulated, _ = host.prepare(build, f'{os.uname().machine}-machine', log=name)
    emulated.limit = max(emulated.limit, limit)
    command = command or [sys.executable, *sys.argv]
    sys.exit(0 if emulated.run_well(shlex.join(command)) else 1)
