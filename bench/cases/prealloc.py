# SPDX-License-Identifier: GPL-2.0-or-later
"""Preallocation, as far as the host is concerned."""

import time

from ..goals import SHADOW, TWO_DIMENSIONAL, Goal
from . import Metric, case

GOALS = (Goal('time', 1.0, 'memfd', paging=SHADOW),
         Goal('time', 0.35, 'memfd', paging=TWO_DIMENSIONAL),
         Goal('time', 1.15, 'bare', paging=TWO_DIMENSIONAL))


def prealloc(threads):
    @case(f'prealloc/{threads}-thread{"s"[:threads - 1]}',
          f'object-add with prealloc=on and {threads} thread(s)',
          {'time': Metric('s', 'until QMP answers')}, sizes=(1, 4, 8), goals=GOALS,
          backends=('guest-memfd', 'memfd', 'memfd-huge', 'ram', 'ram-thp'),
          # Where KVM shadow-pages, QEMU fills the host's page tables, too
          bare=lambda run: ('allocmap' if run.env.paging == SHADOW else 'fallocate', run.size, threads),
          bare_metric='time')
    def measure(run):
        with run.guest(size=64 << 20, software=False) as guest:
            start = time.monotonic()
            guest.vm.cmd('object-add',
                         **run.backend.properties('more', run.size, prealloc=True,
                                                  threads=threads))
            end = time.monotonic()
            guest.vm.cmd('object-del', id='more')
        return {'time': end - start}


prealloc(1)
prealloc(2)
