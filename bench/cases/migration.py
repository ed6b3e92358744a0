# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration, and what the guest feels of it."""

import subprocess
import time

from ..goals import Goal
from . import Broken, Metric, case

MIB = 1 << 20
METRICS = {
    'total': Metric('s', 'total time'),
    'downtime': Metric('s', 'downtime'),
    'source-growth': Metric('B', 'memory added on the source', counted=True),
    'target-growth': Metric('B', "memory added on the target beyond what the guest uses",
                            counted=True),
}
SPARSE = 80 * MIB


def migrate(run, prepare, check, **parameters):
    """prepare(source) returns how many bytes the guest has used by then."""
    uri = f'unix:{run.env.tmp}/migration'
    with run.guest(group=run.group()) as source, \
            run.guest(group=run.group(), incoming=uri) as target:
        used = prepare(source)
        before = [g.group.charge() for g in (source, target)]
        for guest in source, target:
            guest.vm.cmd('migrate-set-capabilities', capabilities=[
                {'capability': 'return-path', 'state': True}])
        source.vm.cmd('migrate-set-parameters', **({'max_bandwidth': 0} | parameters))
        source.vm.cmd('migrate', uri=uri)
        source.wait_migration('completed')
        target.wait_migration('completed')
        after = [g.group.charge() for g in (source, target)]
        check(target)
        info = source.vm.cmd('query-migrate')
    return {'total': info['total-time'] / 1000, 'downtime': info['downtime'] / 1000,
            'source-growth': max(after[0] - before[0], 0),
            'target-growth': max(after[1] - before[1] - used, 0)}


@case('migration/full', 'a guest that uses all of its RAM and is idle, over a UNIX socket',
      METRICS, copies=2, backends=('guest-memfd', 'memfd', 'ram', 'debian'),
      goals=(Goal('total', 0.95, 'memfd'), Goal('downtime', 1.0, 'memfd')))
def full(run):
    def prepare(guest):
        guest.ask('fill 1')
        return run.size

    return migrate(run, prepare, lambda guest: guest.ask('check 1'))


@case('migration/sparse', f'a guest that uses {SPARSE // MIB} MiB of its RAM and is idle', METRICS,
      sizes=(8,), quick=2, small=256, copies=2, goals=(
          Goal('total', 0.15, 'memfd'), Goal('source-growth', plus=64 * MIB),
          Goal('target-growth', plus=64 * MIB)))
def sparse(run):
    start = run.env.ram_start + 64 * MIB

    def prepare(guest):
        guest.ask(f'fillr {start} {SPARSE} 1')
        return SPARSE

    def check(guest):
        guest.ask(f'checkr {start} {SPARSE} 1')
        guest.ask(f'zero {start + SPARSE} {16 * MIB}')

    return migrate(run, prepare, check)


# What the busy guest writes to all the time, and the line: together they leave no choice of
# when the guest is stopped, which is when no more than BUSY is to be sent.
BUSY, LINE = 32 * MIB, 256 * MIB


@case('migration/busy', f'all of it used, and {BUSY // MIB} MiB written all the time; 2 Gbit/s',
      METRICS, copies=2, goals=(Goal('total', 1.0, 'memfd'), Goal('downtime', 1.0, 'memfd')))
def busy(run):
    half = run.env.ram_start + run.size // 2

    def prepare(guest):
        guest.ask('fill 1')
        guest.ask(f'count {half} {run.pick(BUSY, MIB)}')
        return run.size

    def check(guest):
        # What it counts while it moves is checked, too
        guest.ask('stop')
        guest.ask(f'checkr {half + BUSY} {16 * MIB} 1')

    return migrate(run, prepare, check, **({} if run.env.breakage else {'max_bandwidth': LINE}))


# About what a migration of 512 MiB takes
IDLE = 0.4


def gap(guest, act):
    """The longest stop that the guest sees meanwhile."""
    guest.ask('count all')
    act()
    guest.ask('stop')
    return guest.seconds(guest.ask('gap'))


def logging(cpus):
    see = '1 vCPU sees that counts' if cpus == 1 else f'{cpus} vCPUs see that count'
    @case(f'migration/logging-{cpus}', f'longest stop that {see} in all RAM, while logging begins'
          ' and ends',
          {'gap': Metric('s', 'longest time between two pages'),
           'idle': Metric('s', f'the same in {IDLE} s in which nothing else happens')},
          sizes=(1, 4, 8),
          backends=('guest-memfd', 'memfd', 'ram-thp'),
          reasons={'gap': 'The vCPUs wait for each part of the RAM that is switched; where they '
                   'are more than the CPUs, also for each other.'},
          goals=(Goal('gap', plus=0.010), Goal('gap', 2.0, 'memfd'),
                 Goal('gap', 1.3, 'size:1', sizes=(8,))))
    def measure(run):
        with run.guest(cpus=cpus) as guest:
            guest.ask(f'smp {cpus}')
            guest.ask('touch all')
            return {'idle': gap(guest, lambda: time.sleep(IDLE)),
                    'gap': gap(guest, guest.start_and_cancel_migration)}


for number in 1, 4:
    logging(number)


GIB = 1 << 30


@case('migration/limited', 'a guest of 24 GiB that uses 1 GiB, with 3 GiB in its memory cgroup, '
      'is moved there and back, saved and dumped', {
          'kept': Metric('B', 'most that a QEMU had after a step, without files in the page cache',
                         counted=True)},
      backends=('guest-memfd',), sizes=(24,), small=512, copies=0, long=True,
      goals=(Goal('kept', plus=1.25 * GIB),))
def limited(run):
    """The host's killer comes for who needs more, and then there are no figures."""
    used, limit = run.pick(GIB, 16 * MIB), run.pick(3 * GIB, 256 * MIB)
    start = run.env.ram_start + 64 * MIB
    uri, kept = f'unix:{run.env.tmp}/migration', []

    def group():
        made = run.group()
        made.limit(limit)
        return made

    def guest(**kwargs):
        disk = run.env.tmp / 'disk.qcow2'
        subprocess.run([run.env.build / 'bin/qemu-img', 'create', '-q', '-f', 'qcow2', disk,
                        '1G'], check=True)
        return run.guest('-drive', f'if=none,id=disk,file={disk},file.locking=off',
                         group=group(), **kwargs)

    def move(source, target):
        source.vm.cmd('migrate-set-parameters', max_bandwidth=0)
        source.vm.cmd('migrate', uri=uri)
        source.wait_migration('completed')
        target.wait_migration('completed')
        kept.extend(g.group.kept() for g in (source, target))
        target.ask(f'checkr {start} {used} 1')
        target.ask(f'zero {start + used} {16 * MIB}')

    with guest(incoming=uri) as there:
        with guest() as source:
            source.ask(f'fillr {start} {used} 1')
            move(source, there)
        with guest(incoming=uri) as back:
            move(there, back)
            for line in 'savevm one', 'loadvm one':
                said = back.vm.cmd('human-monitor-command', command_line=line)
                if said:
                    raise Broken(f'{line}: {said}')
                kept.append(back.group.kept())
            back.vm.cmd('dump-guest-memory', paging=False, format='kdump-zlib',
                        protocol=f'file:{run.env.tmp}/dump')
            kept.append(back.group.kept())
            back.ask(f'checkr {start} {used} 1')
    return {'kept': max(kept)}
