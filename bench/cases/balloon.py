# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the guest gives back while it runs, and takes again."""

from ..goals import Goal
from . import Metric, case

METRICS = {
    'give': Metric('s', 'the balloon takes half of the RAM, which the guest has touched'),
    'take': Metric('s', 'it gives that back'),
    'touch': Metric('s', 'the guest writes to it again'),
    'kept': Metric('B', 'that the host has not got back of what the balloon took', counted=True),
}


@case('balloon/half', 'half of the RAM is given to a balloon and taken again', METRICS,
      archs=('x86_64',), backends=('guest-memfd', 'memfd', 'ram'),
      goals=(Goal('kept', plus=4 << 20),))
def half(run):
    start, length = run.env.ram_start + run.size // 4, run.size // 2
    device = ('-device', 'virtio-balloon-pci,disable-legacy=off,disable-modern=on')
    with run.guest(*device, group=run.group()) as guest:
        guest.ask('touch all')
        before = guest.group.charge()
        guest.vm.cmd('balloon', value=run.size - length)
        give = guest.ask(f'balloon {start}')
        kept = length - (before - guest.group.charge())
        guest.vm.cmd('balloon', value=run.size)
        take = guest.ask(f'balloon {start}')
        again = guest.ask(f'touch {start} {length}')
        return {'give': guest.seconds(give), 'take': guest.seconds(take),
                'touch': guest.seconds(again), 'kept': max(kept, 0)}
