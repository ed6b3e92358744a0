#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot guests whose RAM is a guest_memfd, and show that it is.

usage: demo.py BUILDDIR [x86_64|aarch64|--migrate]
For each machine type, a small guest of ours (tests/guest-memfd) fills its RAM and checks
it, and what it says is compared with what the host sees. Exits 0 if all of it is true.
Where the machine's own KVM cannot do it, and for aarch64 elsewhere than on an arm64 machine,
the host is an emulated one, as tests/nested has it. --migrate shows a guest that moves to
another QEMU while it writes (demo_migrate.py).

  KERNEL=FILE [INITRD=FILE] [APPEND=OPTIONS]
      boots this Linux kernel instead, with its console on the terminal
"""

import os
import platform
import random
import shlex
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import entry

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / 'tests/guest-memfd'))
from console import Console, values  # noqa: E402 pylint: disable=wrong-import-position
ARCH = platform.machine()
MIB = 1 << 20
if ARCH == 'aarch64':
    # Little RAM: the host may be an emulated one
    RAM, RAM_START = 256 * MIB, 1 << 30
    MACHINES, CPU = ['virt,gic-version=3'], 'host'
else:
    RAM, RAM_START = 1024 * MIB, 0
    MACHINES, CPU = ['pc', 'q35'], 'host,-arch-capabilities'
OBJECT = f'memory-backend-guest-memfd,id=ram0,size={RAM // MIB}M'
COMMON = ['-accel', 'kvm', '-cpu', CPU, '-m', f'{RAM // MIB}M', '-object', OBJECT]
SAMPLES = 4096
NESTED = HERE.parent / 'tests/nested'
HOST_CHECK = HERE.parent / 'contrib/guest-memfd/guest-memfd-host-check'


class Failed(Exception):
    """What is not as it should be, in a sentence."""


def check(condition, sentence):
    if not condition:
        raise Failed(sentence)


def check_host():
    """Ask the host check; show all of it when the demo cannot run."""
    result = subprocess.run([sys.executable, str(HOST_CHECK)], stdout=subprocess.PIPE, text=True)
    check(result.stdout, f'{HOST_CHECK} has failed')
    table, _, verdict = result.stdout.strip().rpartition('\n')
    if result.returncode:
        print(table, flush=True)
    check(result.returncode == 0, f'the demo shows RAM that is bound, and {verdict}')
    return verdict


def show(label, text, newline='\n'):
    lines = textwrap.wrap(text, 84, break_long_words=False, break_on_hyphens=False)
    print(f'  {label:<9}', (newline + ' ' * 14).join(lines), flush=True)


def show_command(pid):
    words = Path(f'/proc/{pid}/cmdline').read_bytes().decode().split('\0')[:-1]
    show('command', shlex.join(words), newline=' \\\n')


def pattern(address, seed):
    """The same as in tests/guest-memfd/pattern.h."""
    return (address + seed * 0xd1342543de82ef95) * 0x9e3779b97f4a7c15 % 2**64


class HostView:
    """What the host sees of a guest's RAM: the mapping and the memslots."""

    def __init__(self, pid, backends):
        self.lines = [line for line in Path(f'/proc/{pid}/maps').read_text().splitlines()
                      if '[kvm-gmem]' in line]
        check(self.lines, f'QEMU has mapped no guest_memfd: no [kvm-gmem] in /proc/{pid}/maps')
        self.maps = []
        for line in self.lines:
            addresses, _, offset = line.split()[:3]
            start, end = (int(a, 16) for a in addresses.split('-'))
            self.maps.append((int(offset, 16), end - start, start))
        mapped = sum(size for _, size, _ in self.maps)
        check(mapped == RAM, f'{mapped} bytes of guest_memfd are mapped, and RAM is {RAM}')

        check([b['id'] for b in backends] == ['ram0'],
              f'query-guest-memfd knows {backends}, and ram0 was expected')
        self.slots = backends[0]['slots']
        self.bound = [s for s in self.slots if s['state'] == 'bound']
        check(sum(s['size'] for s in self.bound) == backends[0]['bound'],
              'query-guest-memfd contradicts itself on the bytes bound')
        self.memory = os.open(f'/proc/{pid}/mem', os.O_RDWR | os.O_CLOEXEC)

    def __del__(self):
        if hasattr(self, 'memory'):
            os.close(self.memory)

    def unbound(self):
        """Parts of the file that no bound memslot shows."""
        at, parts = 0, []
        for slot in sorted(self.bound, key=lambda s: s['offset']):
            if at < slot['offset']:
                parts.append((at, slot['offset']))
            at = slot['offset'] + slot['size']
        return parts + ([(at, RAM)] if at < RAM else [])

    def address(self, gpa):
        """Where QEMU's process has mapped guest address @gpa."""
        offsets = [gpa - s['gpa'] + s['offset'] for s in self.bound
                   if s['gpa'] <= gpa < s['gpa'] + s['size']]
        check(len(offsets) == 1, f'guest address {gpa:#x} is in {len(offsets)} bound memslots')
        return next(start + offsets[0] - offset for offset, size, start in self.maps
                    if offset <= offsets[0] < offset + size)

    def read(self, gpa):
        return int.from_bytes(os.pread(self.memory, 8, self.address(gpa)), 'little')

    def write(self, gpa, value):
        os.pwrite(self.memory, value.to_bytes(8, 'little'), self.address(gpa))

    def show(self):
        for line in self.lines:
            show('mapping', ' '.join(line.split()))
        for s in self.slots:
            show('memslot', f'guest {s["gpa"]:#x}-{s["gpa"] + s["size"]:#x} '
                 f'= file {s["offset"]:#x}-{s["offset"] + s["size"]:#x}: {s["state"]}')
        total = sum(s['size'] for s in self.bound)
        show('bound', f'{total} bytes of {RAM} of RAM')
        for start, end in self.unbound():
            # All that a PC hides of its RAM is below 1 MiB.
            check(ARCH == 'x86_64' and 0xa0000 <= start < end <= 0x100000,
                  f'RAM at {start:#x}-{end:#x} of the file is not bound')
            show('', f'+ {end - start} at {start:#x}-{end:#x}, '
                 'which a PC hides behind VGA and ROMs')
            total += end - start
        check(total == RAM, f'bound and hidden RAM are {total} bytes')


class Guest(Console):
    """A virtual machine that runs the payload, and our line to it."""
    failure = Failed
    patience = 60

    def __init__(self, vm):
        self.vm = vm

    def ask(self, command, quiet=False):
        start = time.monotonic()
        answer = super().ask(command)
        if not quiet:
            said = f'ok {answer}'.strip()
            show('guest', f'{command}: {said}  ({time.monotonic() - start:.2f} s)')
        return answer


def read_by_qmp(vm, gpa):
    with tempfile.NamedTemporaryFile(prefix='guest-memfd-demo-') as file:
        vm.cmd('pmemsave', val=gpa, size=8, filename=file.name)
        return int.from_bytes(Path(file.name).read_bytes(), 'little')


def random_address():
    """Of RAM, above the guest's program."""
    return RAM_START + random.randrange(16 * MIB, RAM, 8)


def check_coherence(vm, guest, host):
    """Random values at random places: nothing can know them beforehand."""
    gpa = random_address()
    value = random.getrandbits(64)
    host.write(gpa, value)
    found = int(guest.ask(f'read64 {gpa:#x}', quiet=True), 0)
    show('coherent', f'host wrote {value:#018x} into the mapping, guest reads {found:#018x}')
    check(found == value, f'the guest does not see what the host wrote for {gpa:#x}')

    value = random.getrandbits(64)
    guest.ask(f'write64 {gpa:#x} {value:#x}', quiet=True)
    found = read_by_qmp(vm, gpa)
    show('coherent', f'guest wrote {value:#018x} at {gpa:#x}, QMP reads {found:#018x}')
    check(found == value and host.read(gpa) == value,
          f'the host does not see what the guest wrote at {gpa:#x}')


def prove(vm):
    """Start a guest and compare what it says with what the host sees; returns what was seen."""
    start = time.monotonic()
    vm.launch()
    show_command(vm.get_pid())
    guest = Guest(vm)
    show('guest', guest.hear())
    if ARCH == 'x86_64':
        guest.ask('pam on')             # also the RAM behind the ROMs, as firmware does
    info = values(guest.ask('info'))
    check(int(info['ram']) == RAM, f'the guest has {info["ram"]} bytes of RAM')
    tested = sum(int(end, 0) - int(start, 0) for start, end in
                 (r.split('-') for r in info['ranges'].split(',')))
    seed = random.getrandbits(32)
    for command in 'fill', 'check':
        check(int(guest.ask(f'{command} {seed}')) == tested, f'{command} did not do all RAM')

    host = HostView(vm.get_pid(), vm.cmd('query-guest-memfd'))
    host.show()
    for _ in range(SAMPLES):
        gpa = random_address()
        check(host.read(gpa) == pattern(gpa, seed),
              f"the host does not find the guest's pattern at {gpa:#x}")
    show('coherent', f"host finds the guest's pattern at {SAMPLES} random places")
    check_coherence(vm, guest, host)
    return {'bound': sum(s['size'] for s in host.bound), 'tested': tested,
            'seconds': time.monotonic() - start}


def remark_on_times():
    if os.environ.get('GUEST_MEMFD_EMULATED_HOST'):         # tests/nested/kvm.py
        print('  This host is emulated, so the times mean nothing.')


def summary(seen):
    """What was shown, in a few lines that a person reads at a glance."""
    row = '  {:<8}  {:>8}  {:>20}  {:>16}  {:>14}  {:>7}'.format
    print(row('machine', 'RAM', 'bound to KVM', 'guest filled and', 'host looked at', 'time'))
    print(row('', 'MiB', 'MiB', 'checked, MiB', 'random places', 's'))
    for machine, found in seen.items():
        print(row(machine, RAM // MIB,
                  f'{found["bound"] / MIB:.1f} ({found["bound"] / RAM:.2%})',
                  f'{found["tested"] / MIB:.1f}', SAMPLES, f'{found["seconds"]:.1f}'))
    remark_on_times()
    print()


def boot_kernel(emulator, kernel):
    """Boot a Linux kernel with its console on the terminal; returns QEMU's exit status."""
    from qemu.qmp import QMPError
    from qemu.qmp.legacy import QEMUMonitorProtocol

    for file in kernel, os.environ.get('INITRD'):
        check(not file or os.access(file, os.R_OK), f'cannot read {file}')
    append = os.environ.get('APPEND', 'console=ttyS0 panic=-1')
    monitor, theirs = socket.socketpair()
    console = tempfile.NamedTemporaryFile(prefix='guest-memfd-console-')
    command = [emulator, *COMMON, '-machine', 'q35,memory-backend=ram0', '-S', '-nodefaults',
               '-display', 'none', '-no-reboot',
               '-chardev', f'stdio,id=tty,mux=on,signal=off,logfile={console.name}',
               '-serial', 'chardev:tty', '-mon', 'chardev=tty,mode=readline',
               '-chardev', f'socket,id=qmp,fd={theirs.fileno()}',
               '-mon', 'chardev=qmp,mode=control',
               '-kernel', kernel, '-append', append]
    if os.environ.get('INITRD'):
        command += ['-initrd', os.environ['INITRD']]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    qmp = QEMUMonitorProtocol(monitor)

    def watch():
        """An internal error of KVM stops the machine and says no more on the console."""
        try:
            while qmp.pull_event(wait=True)['event'] != 'STOP':
                pass
            if qmp.cmd('query-status')['status'] == 'internal-error':
                stopped.append(True)
                qmp.cmd('quit')
        except QMPError:
            pass

    def hint():
        print('\nNothing on the console for a minute. Ctrl-A X ends QEMU. APPEND="console=ttyS0 '
              'earlyprintk=ttyS0" may show more;\na KVM that emulates kernel mode (PVM) cannot '
              'boot Linux.', file=sys.stderr)

    stopped = []
    try:
        qmp.connect()
        show_command(process.pid)
        HostView(process.pid, qmp.cmd('query-guest-memfd')).show()
        print('\n  The console of the guest follows; Ctrl-A X ends it.\n', flush=True)
        qmp.cmd('cont')
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            if not os.path.getsize(console.name):
                hint()
        status = process.wait()
    except (QMPError, ConnectionError) as e:
        raise Failed(f'QEMU has ended: exit status {process.wait()}') from e
    finally:
        process.kill()
        process.wait()
    check(not stopped, 'KVM could not emulate an instruction of this kernel: QEMU names it above. '
          'A host with hardware virtualization runs it; one whose KVM emulates kernel mode (PVM) '
          'cannot boot Linux')
    check(os.path.getsize(console.name), f'{kernel} ended without a word on the console: '
          f'is it a kernel for this machine, and does it have a serial port ("{append}")?')
    check(status == 0, f'QEMU has ended with exit status {status}')


def demo(build, migrate=False):
    found = check_host()
    emulator = build / f'bin/qemu-system-{ARCH}'
    if ARCH == 'aarch64' and not emulator.exists():
        # In the emulated host
        emulator = build / f'qemu/qemu-system-{ARCH}'
    payload = build / f'qemu/tests/guest-memfd/payload-{ARCH}.bin'
    for file in emulator, payload:
        check(file.exists(), f'{file} does not exist: run ./demo, which builds it')
    print(f'{found}\n', flush=True)

    sys.path.insert(0, str(build / 'src/qemu/python'))
    from qemu.machine import QEMUMachine
    from qemu.machine.machine import VMLaunchFailure

    if migrate:
        check(ARCH == 'x86_64', 'the demo of a migration is for x86-64 machines')
        from demo_migrate import show_migration
        show_migration(str(emulator), str(payload))
        return
    if os.environ.get('KERNEL'):
        check(ARCH == 'x86_64', 'KERNEL= is for x86-64 hosts')
        boot_kernel(str(emulator), os.environ['KERNEL'])
        return
    seen = {}
    for machine in MACHINES:
        print(f'{machine}:')
        with QEMUMachine(str(emulator), [*COMMON, '-bios', str(payload), '-nodefaults']) as vm:
            vm.set_machine(f'{machine},memory-backend=ram0')
            vm.set_console()
            try:
                seen[machine.partition(',')[0]] = prove(vm)
            except VMLaunchFailure as e:
                raise Failed(f'QEMU does not start:\n{e.output or e}') from e
        print(flush=True)
    summary(seen)
    guests = 'both guests' if len(MACHINES) == 2 else 'the guest'
    print(f"All of it is true: {guests} ran on RAM that is a guest_memfd, bound to KVM's "
          'memslots.')


def emulate(build, arch):
    """Run this program in an emulated host of another architecture."""
    check(arch == 'aarch64', f'the demo for {arch} needs such a host, and this one is {ARCH}')
    print(f'No {arch} machine here: one is emulated, whose KVM runs the guest '
          '(that takes a minute).\n', flush=True)
    for command in ([HERE / 'cross-qemu', build, arch],
                    [sys.executable, NESTED / 'host.py', '--build', build,
                     arch, 'python3', '/scripts/demo.py', '/']):
        check(not subprocess.run(command, check=False).returncode,
              f'{command[0]} has failed: see above')


def main():
    what = sys.argv[2] if len(sys.argv) == 3 else ARCH
    migrate = what == '--migrate'
    arch = ARCH if migrate else what
    if len(sys.argv) not in (2, 3) or arch not in ('x86_64', 'aarch64'):
        sys.exit(__doc__.split('\n\n')[1])
    build = Path(sys.argv[1]).resolve()
    try:
        if arch == ARCH:
            if (NESTED / 'kvm.py').exists() and ARCH == 'x86_64':
                sys.path.append(str(NESTED))
                import kvm
                kvm.ensure(build, 'demo')
            demo(build, migrate)
        else:
            emulate(build, arch)
    except Failed as e:
        sys.exit(f'error: {e}')


if __name__ == '__main__':
    # What demo_migrate.py imports, and raises, is to be this and no second copy
    sys.modules['demo'] = sys.modules['__main__']
    entry.run(main)
