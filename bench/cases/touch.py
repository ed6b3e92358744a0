# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest pays for each page that it writes to, the first time and later."""

from ..goals import TWO_DIMENSIONAL, Goal
from . import PLACEMENT, Metric, case

METRICS = {
    'first': Metric('s', 'the guest writes to each page of its RAM'),
    'second': Metric('s', 'it does so again'),
    'faults': Metric('1', 'page faults for a page, the first time', counted=True, optional=True),
    'exits': Metric('1', 'exits for a page, the first time', counted=True),
}


def touch(name, what, prealloc, cpus, goals):
    @case(f'touch/{name}-{cpus}', f'{what}, {cpus} vCPU(s)', METRICS, sizes=(1, 4), goals=goals,
          backends=('guest-memfd', 'mapped', 'memfd', 'memfd-huge', 'ram', 'ram-thp'),
          bare=None if prealloc else lambda run: ('populate', run.size, cpus),
          bare_metric='first', reasons={'second': PLACEMENT})
    def measure(run):
        with run.guest(prealloc=prealloc, cpus=cpus) as guest:
            guest.ask(f'smp {cpus}')
            if prealloc:
                guest.prefaulted()
            first, second = guest.touch(), guest.touch()
        return {'first': first.seconds, 'second': second.seconds,
                'faults': first.faults, 'exits': first.exits}


for number in 1, 2:
    touch('cold', 'first touch of RAM that nobody has used', False, number,
          (Goal('first', 1.0, 'memfd'),))
    touch('prealloc', 'first touch of preallocated RAM', True, number,
          (Goal('first', 1.0, 'memfd'), Goal('faults', plus=0.02, paging=TWO_DIMENSIONAL)))
