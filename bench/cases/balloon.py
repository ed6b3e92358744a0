# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that the guest gives back while it runs, and takes again."""

import contextlib
import struct
import sys
from pathlib import Path

from ..goals import Goal
from . import Broken, Metric, case, wait_until

sys.path.append(str(Path(__file__).resolve().parents[2] / 'tests/soak'))
from virtio import Virtio  # noqa: E402 pylint: disable=wrong-import-position

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


# It has a request for all of its memory. virtio standard 5.15.6: type, address, blocks
VMEM, BLOCK, SLOT, ADDRESS = 128 * MIB, 2 * MIB, 0x10, 8 << 30
REQUEST, ANSWER_LENGTH = struct.Struct('<HxxxxxxQHxxxxxx'), 10
PLUG, UNPLUG = 0, 1


def virtio_mem(guest, kind):
    """The device plugs or unplugs its memory; from the host, by qtest."""
    guest.vm.cmd('qom-set', path='/machine/peripheral/vmem0', property='requested-size',
                 value=VMEM if kind == PLUG else 0)
    with contextlib.closing(guest.qtest()) as qtest:
        device = Virtio(qtest, SLOT)
        answer = device.page + REQUEST.size
        device.write(device.page, REQUEST.pack(kind, ADDRESS, VMEM // BLOCK))
        device.put('w', answer, 0xffff)
        device.request(lambda done, _what: wait_until(done, every=0.0001),
                       (device.page, REQUEST.size, False), (answer, ANSWER_LENGTH, True))
        if device.ask(f'readw {answer}'):
            raise Broken('virtio-mem refuses')


@case('balloon/virtio-mem', f'{VMEM // MIB} MiB are unplugged from virtio-mem and plugged again',
      METRICS | {'give': Metric('s', 'the device takes memory that the guest has touched')},
      archs=('x86_64',), backends=('guest-memfd', 'memfd'),
      goals=(Goal('give', 1.0, 'memfd'), Goal('kept', plus=MIB / 2)))
def unplug_and_plug(run):
    socket = run.env.tmp / 'qtest'
    device = ('-m', 'maxmem=32G', '-object', run.backend.object('vmem', VMEM), '-device',
              f'virtio-mem-pci,id=vmem0,memdev=vmem,memaddr={ADDRESS},addr={SLOT}',
              '-qtest', f'unix:{socket},server=on,wait=off', '-qtest-log', '/dev/null')
    with run.guest(*device, group=run.group(), qtest_at=socket) as guest:
        virtio_mem(guest, PLUG)
        guest.ask(f'touch {ADDRESS} {VMEM}')
        before = guest.group.charge()
        give = run.timed(virtio_mem, guest, UNPLUG)
        kept = VMEM - (before - guest.group.charge())
        take = run.timed(virtio_mem, guest, PLUG)
        again = guest.ask(f'touch {ADDRESS} {VMEM}')
        return {'give': give, 'take': take, 'touch': guest.seconds(again), 'kept': max(kept, 0)}
