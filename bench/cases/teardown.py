# SPDX-License-Identifier: GPL-2.0-or-later
"""Giving a guest's memory back to the host."""

import os
import signal
import time

from ..goals import Goal
from ..host import meminfo
from . import Metric, case, wait_until
from .slots import DIMM, SLOTS, plug, unplug

BACK = {'time': Metric('s', "until the host's memory is free again")}
# Of the memory: other processes come and go, too
MOST = 0.9


@case('teardown/kill', 'SIGKILL for a QEMU whose guest has touched all of its RAM', BACK,
      sizes=(1, 4), backends=('guest-memfd', 'memfd', 'memfd-huge', 'ram', 'ram-thp'),
      goals=(Goal('time', 0.75, 'memfd'),), bare=lambda run: ('release', run.size, 1),
      bare_metric='time')
def kill(run):
    with run.guest(group=run.group()) as guest:
        guest.ask('touch all')
        used = taken(run.backend, guest.group)
        start = time.monotonic()
        os.kill(guest.pid, signal.SIGKILL)
        # Left for Guest to collect
        os.waitid(os.P_PID, guest.pid, os.WEXITED | os.WNOWAIT)
        wait_until(lambda: used - taken(run.backend, guest.group) > MOST * run.size, every=0.001)
        return {'time': time.monotonic() - start}


def taken(backend, group):
    """Memory that is not back yet.

    The kernel's MemFree does not tell: a virtual host may report freed memory to its own host,
    and until that is done, the memory is not free.
    """
    if 'hugetlb' not in backend.options:
        return group.charge()
    info = meminfo()
    return info['Hugetlb'] - info['HugePages_Free'] * (2 << 20)


@case('teardown/unplug', 'unplugging a DIMM whose memory the guest has touched', BACK,
      archs=('x86_64',), sizes=(0.25,), quick=0.25)
def dimm(run):
    with run.guest(*SLOTS, group=run.group()) as guest:
        plug(guest)
        gpa = guest.vm.cmd('query-memory-devices')[0]['data']['addr']
        guest.ask(f'touch {gpa} {DIMM}')
        charge = guest.group.charge()
        start = time.monotonic()
        unplug(guest)
        wait_until(lambda: charge - guest.group.charge() > MOST * DIMM, 60, every=0.001)
        return {'time': time.monotonic() - start}
