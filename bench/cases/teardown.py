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
    with run.guest() as guest:
        guest.ask('touch all')
        free = free_memory(run.backend)
        start = time.monotonic()
        os.kill(guest.pid, signal.SIGKILL)
        # Left for Guest to collect
        os.waitid(os.P_PID, guest.pid, os.WEXITED | os.WNOWAIT)
        wait_until(lambda: free_memory(run.backend) - free > MOST * run.size)
        return {'time': time.monotonic() - start}


def free_memory(backend):
    info = meminfo()
    huge = info.get('Hugetlb', 0) - info.get('HugePages_Free', 0) * (2 << 20)
    return -huge if 'hugetlb' in backend.options else info['MemFree']


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
        wait_until(lambda: charge - guest.group.charge() > MOST * DIMM, 60)
        return {'time': time.monotonic() - start}
