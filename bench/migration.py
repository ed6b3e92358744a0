#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Migration of a VM on guest_memfd, side by side with memory-backend-memfd.

usage: bench/migration.py BUILDDIR [ROUNDS]
Prints medians over ROUNDS (default 7), the two backends taking turns: total time and
downtime of a guest of 1 GiB, idle at full speed, and busy over a line of 2 Gbit/s; and how
long vCPUs are kept from running when logging starts, for 1, 4 and 8 GiB of untouched and
of touched RAM.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

BACKENDS = ['guest-memfd', 'memfd']
# What the busy guest writes to all the time, and the line: together they leave no choice
# of when the guest is stopped, which is when no more than BUSY is to be sent.
BUSY = 32 << 20
LINE = 256 << 20


class Guest:
    """A VM that runs the payload of tests/guest-memfd."""

    def __init__(self, build, backend, gib, extra=()):
        from qemu.machine import QEMUMachine

        self.vm = QEMUMachine(str(build / 'bin/qemu-system-x86_64'), [
            '-accel', 'kvm', '-cpu', 'host,-arch-capabilities', '-m', f'{gib}G', '-nodefaults',
            '-object', f'memory-backend-{backend},id=ram0,size={gib}G',
            '-bios', str(build / 'qemu/tests/guest-memfd/payload-x86_64.bin'), *extra])
        self.vm.set_machine('q35,memory-backend=ram0')
        self.vm.set_console()
        self.vm.launch()
        self.vm.console_socket.settimeout(300)
        self.lines = self.vm.console_socket.makefile('rw', newline='\n')
        if not extra:
            self.lines.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.vm.shutdown(hard=True)

    def ask(self, command):
        self.lines.write(command + '\n')
        self.lines.flush()
        answer = self.lines.readline().strip()
        if not answer.startswith('ok'):
            sys.exit(f'error: the guest was told "{command}" and says "{answer}"')

    def migrate(self, uri):
        self.vm.cmd('migrate', uri=uri)
        while True:
            info = self.vm.cmd('query-migrate')
            if info.get('status') in ('completed', 'failed', 'cancelled'):
                return info
            time.sleep(0.01)


def migration(build, backend, busy):
    """Total time and downtime, in ms; the guest is checked on the other side."""
    with tempfile.TemporaryDirectory() as tmp:
        uri = f'unix:{tmp}/migration'
        with Guest(build, backend, 1) as source, \
                Guest(build, backend, 1, ['-incoming', uri]) as target:
            source.ask('fill 1')
            if busy:
                source.ask(f'count {1 << 29} {BUSY}')
            for vm in source.vm, target.vm:
                vm.cmd('migrate-set-capabilities', capabilities=[
                    {'capability': 'return-path', 'state': True}])
            source.vm.cmd('migrate-set-parameters', max_bandwidth=LINE if busy else 0)
            info = source.migrate(uri)
            if info['status'] != 'completed':
                sys.exit(f'error: migration {info["status"]}: {info.get("error-desc")}')
            if busy:
                target.ask('stop')
            target.ask(f'checkr {1 << 28} {1 << 28} 1')
            return info['total-time'], info['downtime']


def window(build, gib, touched):
    """The longest stop of vCPUs when logging starts and ends, in us."""
    with Guest(build, 'guest-memfd', gib) as guest:
        if touched:
            guest.ask('fill 1')
        guest.vm.cmd('migrate-set-parameters', max_bandwidth=1 << 20)
        guest.vm.cmd('migrate', uri='exec:cat > /dev/null')
        while guest.vm.cmd('query-migrate').get('status') != 'active':
            time.sleep(0.01)
        guest.vm.cmd('migrate_cancel')
        while guest.vm.cmd('query-migrate')['status'] != 'cancelled':
            time.sleep(0.01)
        return guest.vm.cmd('query-guest-memfd')[0]['max-inhibit-us']


def main():
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__.split('\n\n')[1])
    build = Path(sys.argv[1]).resolve()
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    sys.path.insert(0, str(build / 'src/qemu/python'))
    print(f'Linux {os.uname().release}, {os.cpu_count()} CPUs, medians of {rounds} rounds\n')

    print('1 GiB over a UNIX socket     total ms                 downtime ms')
    print('guest                guest_memfd  memfd  ratio   guest_memfd  memfd  ratio')
    for busy in False, True:
        results = {backend: [] for backend in BACKENDS}
        for i in range(rounds):
            for backend in BACKENDS[::1 if i % 2 else -1]:
                results[backend].append(migration(build, backend, busy))
        row = f'{f"busy ({BUSY >> 20} MiB)" if busy else "idle":<20}'
        for column in 0, 1:
            ours, theirs = (statistics.median(r[column] for r in results[b])
                            for b in BACKENDS)
            row += f' {ours:11.0f} {theirs:6.0f} {ours / max(theirs, 1):6.2f}  '
        print(row, flush=True)

    print('\nlongest stop of vCPUs, us   untouched    touched')
    for gib in 1, 4, 8:
        stops = [statistics.median(window(build, gib, touched) for _ in range(max(rounds // 2, 1)))
                 for touched in (False, True)]
        print(f'{gib} GiB                {stops[0]:15.0f} {stops[1]:10.0f}', flush=True)


if __name__ == '__main__':
    main()
