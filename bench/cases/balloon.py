# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the guest gives back while it runs, and takes again."""

from ..goals import Goal
from . import BATCHES, Broken, Metric, case

MIB = 1 << 20
# Pages go one by one, and where KVM shadows page tables each takes about a millisecond
LENGTH = 8 * MIB
METRICS = {
    'give': Metric('s', 'the balloon takes memory that the guest has touched'),
    'take': Metric('s', 'it gives that back'),
    'touch': Metric('s', 'the guest writes to it again'),
    'kept': Metric('B', 'that the host has not got back of what the guest gave', counted=True),
}


@case('balloon/8M', f'{LENGTH // MIB} MiB are given to a balloon and taken again', METRICS,
      archs=('x86_64',), backends=('guest-memfd', 'memfd', 'ram'),
      goals=(Goal('give', 1.0, 'memfd'), Goal('kept', plus=MIB / 2)),
      reasons={'kept': BATCHES})
def give_and_take(run):
    start = run.env.ram_start + run.size // 4
    device = ('-device', 'virtio-balloon-pci,disable-legacy=on')
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


# It has a request for all of its memory
VMEM = 64 * MIB


@case('balloon/virtio-mem', f'{VMEM // MIB} MiB are unplugged from virtio-mem and plugged again',
      METRICS | {'give': Metric('s', 'the device takes memory that the guest has touched')},
      archs=('x86_64',), backends=('guest-memfd', 'memfd'),
      goals=(Goal('give', 1.0, 'memfd'), Goal('kept', plus=MIB / 2)),
      reasons={'kept': BATCHES})
def unplug_and_plug(run):
    device = ('-m', 'maxmem=32G', '-object', run.backend.object('vmem', VMEM),
              '-device', 'virtio-mem-pci,id=vmem0,memdev=vmem,disable-legacy=on')
    with run.guest(*device, group=run.group()) as guest:
        def ask(size):
            guest.vm.cmd('qom-set', path='/machine/peripheral/vmem0', property='requested-size',
                         value=size)
            answer = guest.ask('vmem')
            if int(answer['bytes'], 0) != size:
                raise Broken(f'virtio-mem has plugged {answer["bytes"]} bytes and not {size}')
            return answer

        start = ask(VMEM)['start']
        guest.ask(f'touch {start} {VMEM}')
        before = guest.group.charge()
        give = ask(0)
        kept = VMEM - (before - guest.group.charge())
        take = ask(VMEM)
        again = guest.ask(f'touch {start} {VMEM}')
        return {'give': guest.seconds(give), 'take': guest.seconds(take),
                'touch': guest.seconds(again), 'kept': max(kept, 0)}
