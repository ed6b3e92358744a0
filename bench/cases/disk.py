# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks, whose contents the host writes into guest memory by its mapping."""

from ..goals import Goal
from . import Broken, Metric, case

MIB = 1 << 20
REQUEST, DISK = 64 << 10, 64 * MIB
WORD = 0x6b736964646673
METRICS = {'first': Metric('s', f'for a request of {REQUEST >> 10} KiB into memory that only the '
                           'guest has touched'),
           'time': Metric('s', f'for a request of {REQUEST >> 10} KiB, of which up to 85 are on '
                          'their way')}
# The guest program knows how it was before virtio 1.0
LEGACY = 'disable-legacy=off,disable-modern=on'


def image(run):
    """A file on a file system, as O_DIRECT wants one."""
    path = run.env.build / 'bench/disk'
    if not path.exists() or path.stat().st_size != DISK:
        path.write_bytes(WORD.to_bytes(8, 'little') * (DISK // 8))
    return path


def null(run):
    """Nothing is read: QEMU fills the memory with zeroes."""
    del run
    return ['-blockdev', f'null-co,node-name=disk,size={DISK},read-zeroes=on',
           '-device', f'virtio-blk-pci,drive=disk,{LEGACY}'], 0


def file(run):
    """The kernel writes into guest memory, past the page cache."""
    return ['-blockdev', f'file,node-name=disk,filename={image(run)},read-only=on,aio=io_uring,'
           'cache.direct=on', '-device', f'virtio-blk-pci,drive=disk,{LEGACY}'], WORD


def disk(name, what, device, requests, backends):
    @case(f'disk/{name}', f'the guest reads a virtio disk: {what}', METRICS, backends=backends,
          archs=('x86_64',), goals=(Goal('time', 1.02, 'memfd'),),
          reasons={'first': 'What only the guest has touched is not in the page tables of the '
                            'host, and each page faults once when QEMU first writes to it.'})
    def measure(run):
        number = run.pick(requests, 200)
        start, length = run.env.ram_start + run.size // 2, run.size // 4
        options, word = device(run)
        with run.guest(*options) as guest:
            # The guest's first touch is not measured
            guest.ask(f'touch {start} {length}')
            first, answer = (guest.ask(f'disk {number} {REQUEST} {start} {length}')
                             for _ in range(2))
            found = guest.word(start + REQUEST - 4096)
            if found != word:
                raise Broken(f'the guest has read {found:#x} and not {word:#x}')
            return {'first': guest.seconds(first) / number,
                    'time': guest.seconds(answer) / number}


disk('null', 'zeroes', null, 20000, ('guest-memfd', 'memfd', 'ram', 'debian'))
disk('file', 'a file, O_DIRECT and io_uring', file, 5000, ('guest-memfd', 'memfd', 'ram', 'debian'))
