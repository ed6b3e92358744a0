# SPDX-License-Identifier: GPL-2.0-or-later
"""How long it takes until a virtual machine is there."""

from ..goals import Goal
from . import Metric, case


@case('start/guest', "from exec to what the guest's first instructions say",
      {'time': Metric('s', "until the guest program's greeting")}, small=64,
      backends=('guest-memfd', 'memfd', 'ram', 'debian'), goals=(Goal('time', 1.02, 'memfd'),),
      bare=lambda run: ('exec', 4096, run.pick(100, 2)), bare_metric='time')
def guest(run):
    with run.guest() as vm:
        return {'time': vm.ready_after}


def stopped(name, what, sizes, quick, small, goals, **options):
    @case(f'start/{name}', what, {'time': Metric('s', "until QMP's greeting")}, small=small,
          sizes=sizes, quick=quick, goals=goals, copies=int('prealloc' in options),
          # What KVM has for 1 TiB where it shadows page tables: 8 bytes a page, zeroed
          beside=3 << 30 if name == '1T' else 0,
          reasons={'time': 'Its RAM is hundreds of memslots, so that a change costs few of them, and '
                           'KVM waits for all processors after each.'}
          if name == '1T' else {})
    def measure(run):
        with run.guest(software=False, **options) as vm:
            return {'time': vm.started_after}


stopped('1T', 'from exec to QMP of a stopped machine of 1 TiB', (1024,), 1024, 4096,
        (Goal('time', 1.05, 'memfd'),))
stopped('prealloc', 'from exec to QMP of a stopped machine, preallocated by 2 threads', (1, 4), 0.5, 128,
        (), prealloc=True, threads=2)
