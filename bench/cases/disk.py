# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks, whose contents the host writes into guest memory by its mapping."""

import contextlib
import subprocess

from ..goals import Goal
from ..host import listens, processor_time
from . import Broken, Metric, case, wait_until

MIB = 1 << 20
REQUEST, DISK = 64 << 10, 64 * MIB
WORD = 0x6b736964646673
METRICS = {'first': Metric('s', f'for a request of {REQUEST >> 10} KiB into memory that only the '
                           'guest has touched'),
           'time': Metric('s', f'for a request of {REQUEST >> 10} KiB, of which up to 85 are on '
                          'their way'),
           'processor': Metric('s', 'of that, the time of processors beside the vCPU\'s')}
FILE = 'read-only=on,aio=io_uring,cache.direct=on'


def image(run):
    """A file on a file system, as O_DIRECT wants one."""
    path = run.env.build / 'bench/disk'
    if not path.exists() or path.stat().st_size != DISK:
        path.write_bytes(WORD.to_bytes(8, 'little') * (DISK // 8))
    return path


# Each gives QEMU's options, what the disk has in it, and the process that reads it, if that is
# another one

@contextlib.contextmanager
def null(_run):
    """Nothing is read: QEMU fills the memory with zeroes."""
    yield ['-blockdev', f'null-co,node-name=disk,size={DISK},read-zeroes=on',
           '-device', 'virtio-blk-pci,drive=disk,disable-legacy=on'], 0, None


@contextlib.contextmanager
def file(run):
    """The kernel writes into guest memory, past the page cache."""
    yield ['-blockdev', f'file,node-name=disk,filename={image(run)},{FILE}',
           '-device', 'virtio-blk-pci,drive=disk,disable-legacy=on'], WORD, None


@contextlib.contextmanager
def vhost_user(run):
    """Another process has mapped the guest's memory, and reads the file into it."""
    socket = run.env.tmp / 'disk'
    with subprocess.Popen([run.env.build / 'qemu/storage-daemon/qemu-storage-daemon',
                           '--blockdev', f'file,node-name=disk,filename={image(run)},{FILE}',
                           '--export', 'vhost-user-blk,id=disk,node-name=disk,addr.type=unix,'
                                       f'addr.path={socket}']) as daemon:
        try:
            wait_until(lambda: listens(socket), 60)
            yield ['-chardev', f'socket,id=disk,path={socket}', '-device',
                   'vhost-user-blk-pci,chardev=disk,num-queues=1,queue-size=256,'
                   'disable-legacy=on'], WORD, daemon.pid
        finally:
            daemon.kill()
            socket.unlink(missing_ok=True)


def disk(name, what, device, requests, backends):
    @case(f'disk/{name}', f'the guest reads a virtio disk: {what}', METRICS, backends=backends,
          archs=('x86_64',), goals=(Goal('time', 1.02, 'memfd'),),
          reasons={'first': 'What only the guest has touched is not in the page tables of the '
                            'host, and each page faults once when QEMU first writes to it.'})
    def measure(run):
        number = run.pick(requests, 200)
        start, length = run.env.ram_start + run.size // 2, run.size // 4
        with device(run) as (options, word, other), run.guest(*options) as guest:
            def processor():
                return guest.processor_time() + (processor_time(other) if other else 0)

            # The guest's first touch is not measured
            guest.ask(f'touch {start} {length}')
            first = guest.ask(f'disk {number} {REQUEST} {start} {length}')
            before = processor()
            answer = guest.ask(f'disk {number} {REQUEST} {start} {length}')
            used = processor() - before
            found = guest.word(start + REQUEST - 4096)
            if found != word:
                raise Broken(f'the guest has read {found:#x} and not {word:#x}')
            return {'first': guest.seconds(first) / number,
                    'time': guest.seconds(answer) / number, 'processor': used / number}


# Enough requests for the processors' time, of which the disk leaves little
disk('null', 'zeroes', null, 20000, ('guest-memfd', 'memfd', 'ram', 'debian'))
disk('file', 'a file, O_DIRECT and io_uring', file, 20000,
     ('guest-memfd', 'memfd', 'ram', 'debian'))
disk('vhost-user', 'another process reads the file', vhost_user, 5000,
     ('guest-memfd', 'memfd', 'debian'))
