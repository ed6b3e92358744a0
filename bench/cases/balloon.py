# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the guest gives back while it runs, and takes again."""

from ..goals import Goal
from . import Metric, case

MIB = 1 << 20
# Pages go one by one, and where KVM shadows page tables each takes about a millisecond
LENGTH = 8 * MIB
METRICS = {
    'give': Metric('s', 'the balloon takes memory that the guest has touched'),
    'take': Metric('s', 'it gives that back'),
    'touch': Metric('s', 'the guest writes to it again'),
    'kept': Metric('B', 'that the host has not got back of what the balloon took', counted=True),
}


@case('balloon/8M', f'{LENGTH // MIB} MiB are given to a balloon and taken again', METRICS,
      archs=('x86_64',), backends=('guest-memfd', 'memfd', 'ram'),
      goals=(Goal('give', 1.0, 'memfd'), Goal('kept', plus=MIB / 2)))
def give_and_take(run):
    start = run.env.ram_start + run.size // 4
    device = ('-device', 'virtio-balloon-pci,disable-legacy=off,disable-modern=on')
    with run.guest(*device, group=run.group()) as guest:
        guest.ask('touch all')
        before = guest.group.charge()
        guest.vm.cmd('balloon', value=run.size - LENGTH)
        give = guest.ask(f'balloon {start}')
        kept = LENGTH - (before - guest.group.charge())
        guest.vm.cmd('balloon', value=run.size)
        take = guest.ask(f'balloon {start}')
        again = guest.ask(f'touch {start} {LENGTH}')
        return {'give': guest.seconds(give), 'take': guest.seconds(take),
                'touch': guest.seconds(again), 'kept': max(kept, 0)}
