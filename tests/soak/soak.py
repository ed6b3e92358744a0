#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Several VMs on guest_memfd RAM, to which everything happens at once, in random order.

usage: soak.py BUILD
Their guests verify their memory all the time. Variables: HOURS=N (default 0.05, which is 3
minutes), SEED=N repeats the order of operations, VMS=N. At its end it says what was done;
any byte, answer or VM that is lost ends it at once, with the seed and the last operations.
"""

import collections
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path += [str(TOP / d) for d in ('', 'tests/nested', 'tests/guest-memfd', 'scripts')]
import entry  # noqa: E402 pylint: disable=wrong-import-position
import kvm  # noqa: E402 pylint: disable=wrong-import-position


def press():
    """What else a host does: it uses its processors and its memory."""
    while True:
        block = bytearray(64 << 20)
        for i in range(0, len(block), 4096):
            block[i] = i & 255
        time.sleep(.1)


def unevictable():
    for line in Path('/proc/meminfo').read_text(encoding='ascii').splitlines():
        if line.startswith('Unevictable:'):
            return int(line.split()[1]) << 10
    sys.exit('error: no Unevictable in /proc/meminfo')


def soak(build, seed, seconds, vms):
    # They need QEMU's Python, which is in the build
    from guest import wait_until
    from machine import OPERATIONS, Machine

    rng = random.Random(seed)
    count = collections.Counter()
    done = []
    before = unevictable()
    start = time.monotonic()
    pressure = multiprocessing.Process(target=press, daemon=True)
    pressure.start()
    with tempfile.TemporaryDirectory(prefix='soak-') as tmp:
        machines = []
        try:
            machines += [Machine(build, tmp, rng, count) for _ in range(vms)]
            while time.monotonic() - start < seconds:
                n = rng.randrange(vms)
                operation = rng.choice(OPERATIONS)
                done.append(f'{time.monotonic() - start:.1f} s: VM {n} '
                            f'({machines[n].shape.machine}, {machines[n].shape.cpus} CPUs): '
                            f'{operation}')
                machines[n].go_on()
                getattr(machines[n], f'do_{operation}')()
                machines[n].qemu.wait_bound()
                count[operation] += 1
            for machine in machines:
                machine.verify()
                machine.qemu.end()
            machines.clear()
        except Exception:
            print(f'LOST. The last operations, with SEED={seed}:')
            print(*done[-20:], sep='\n')
            for machine in machines:
                print(machine.qemu.get_log() or 'QEMU said nothing')
            raise
        finally:
            pressure.kill()
            for machine in machines:
                machine.qemu.end(hard=True)
    wait_until(lambda: unevictable() <= before + (1 << 20), 'the memory of the host is back')
    return len(done), count


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.split('\n\n')[1])
    try:
        hours = float(os.environ.get('HOURS') or .05)
        seed = int(os.environ.get('SEED') or random.randrange(1 << 30))
        vms = int(os.environ.get('VMS') or 2)
    except ValueError as error:
        sys.exit(f'error: HOURS, SEED and VMS are numbers: {error}')
    build = Path(sys.argv[1]).resolve()
    kvm.ensure(build, 'soak', limit=hours * 3600 + 1800)
    sys.path.append(str(build / 'src/qemu/python'))
    # So that the VMs end, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended by a signal'))
    print(f'SEED={seed} HOURS={hours} VMS={vms}', flush=True)
    n, count = soak(build, seed, hours * 3600, vms)
    for name, number in sorted(count.items()):
        print(f'{name:<16} {number}')
    print(f'{n} operations, nothing lost, the memory of the host is back')


if __name__ == '__main__':
    entry.run(main)
