# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual machines in a nested host, whose guests obey on their serial port."""

import os
import sys
import time
from pathlib import Path

from console import GREETING, Console
from qemu.machine import QEMUMachine

ARCH = os.uname().machine
QEMU = f'/qemu/qemu-system-{ARCH}'
PAYLOAD = f'/qemu/tests/guest-memfd/payload-{ARCH}.bin'
MIB = 1 << 20
RAM = 192 * MIB
TSEG = 16 * MIB
BACKEND = 'memory-backend-guest-memfd,id=ram0'

if ARCH == 'x86_64':
    TTY = 'ttyS0'
    RAM_START = 0
    MACHINES = {'pc': 'pc', 'pc-smm-off': 'pc,smm=off',
                'q35': 'q35,smm=on', 'q35-smm-off': 'q35,smm=off'}
    DEFAULT = 'q35,smm=on'
    # What a PC hides of its RAM behind VGA and ROMs
    HIDDEN = 384 << 10
    # SeaBIOS restores its copy in RAM after a reset, and then resets the machine itself
    FIRMWARE_RESETS = 1
else:
    TTY = 'ttyAMA0'
    RAM_START = 1 << 30
    MACHINES = {'virt': 'virt,gic-version=3'}
    DEFAULT = 'virt,gic-version=3'
    HIDDEN = 0
    FIRMWARE_RESETS = 0


def check(condition, *what):
    if not condition:
        raise AssertionError(' '.join(str(w) for w in what))


def uefi(machine):
    """The firmware of Debian for a machine; where that has SMM, the one that protects itself."""
    def find(name):
        return str(next(Path('/qemu/qemu-bundle').glob(f'**/{name}')))

    if ARCH != 'x86_64':
        return ['-bios', find('QEMU_EFI.fd')]
    smm = 'smm=off' not in machine
    code = find('OVMF_CODE_4M.secboot.fd' if smm else 'OVMF_CODE_4M.fd')
    flash = 'if=pflash,format=raw,file='
    # Machines of 10.2 and later have 64 MiB for SMM alone, a third of our RAM
    tseg = ['-global', f'mch.extended-tseg-mbytes={TSEG // MIB}'] if smm else []
    return [*tseg, '-global', f'driver=cfi.pflash01,property=secure,value={"on" if smm else "off"}',
            '-drive', f'{flash}{code},readonly=on',
            '-drive', f'{flash}{find("OVMF_VARS_4M.fd")},snapshot=on']


class Guest(Console):
    """A QEMU whose guest obeys on its serial port: the payload, or Linux with our init."""

    def __init__(self, machine, *args, linux=False, backend=BACKEND, cpus=1, ram=RAM,
                 accel='kvm'):
        software = ['-bios', PAYLOAD]
        if linux:
            software = ['-kernel', '/guest/vmlinuz', '-initrd', '/guest/initrd',
                        '-append', f'console={TTY} quiet panic=-1 rdinit=/init '
                                   # so that it can be unplugged, and takes no RAM before
                                   'memhp_default_state=online_movable swiotlb=noforce '
                                   # Else the kernel may want a block of pages more to be
                                   # free, which is 32 MiB where pages have 16 KiB
                                   'sysctl.vm.watermark_boost_factor=0']
        self.vm = QEMUMachine(QEMU, [
            '-accel', accel, '-cpu', 'host', '-smp', str(cpus), '-m', f'{ram // MIB}M',
            '-object', f'{backend},size={ram}', '-machine', 'memory-backend=ram0', '-nodefaults',
            *software, *args], base_temp_dir='/tmp')
        self.vm.set_machine(machine)
        self.vm.set_console()
        self.ram = ram
        self.resets = 0

    def __enter__(self):
        self.start = time.monotonic()
        self.vm.launch()
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            print('QEMU:', self.log(), 'unread on the console:', self.unread, file=sys.stderr)
        elif self.vm.is_running():
            self.check_resets()
        self.vm.shutdown(hard=True)

    def check_resets(self):
        """A guest that is lost, and so ends in a triple fault, must not pass for a new one."""
        while event := self.vm.event_wait('RESET', 0, {'data': {'reason': 'guest-reset'}}):
            check(self.resets, 'the guest was reset, and nobody had told it to:', event)
            self.resets -= 1

    def receive(self):
        got = super().receive()
        if got:
            self.check_resets()
        return got

    def hear(self):
        """The next line of the program: a kernel says other things, too."""
        while True:
            line = super().hear()
            print('guest:', line, file=sys.stderr)
            check('Kernel panic' not in line, line)
            if line.startswith(('ok', 'error')) or GREETING.search(line):
                return line

    def ready(self):
        greeting = self.wait_ready()
        self.check_resets()
        self.resets = 0
        print(f'# {self.vm._machine}: ready after {time.monotonic() - self.start:.1f} s',
              flush=True)
        return greeting

    def ask(self, command):
        start = time.monotonic()
        if command == 'reset':
            self.resets += 1 + FIRMWARE_RESETS
        answer = super().ask(command)
        print(f'{command}: {time.monotonic() - start:.1f} s', file=sys.stderr)
        return answer

    def log(self):
        """What QEMU has said."""
        return Path(self.vm._qemu_log_path).read_text(encoding='utf-8')

    def slots(self, backend='ram0'):
        info, = (b for b in self.vm.cmd('query-guest-memfd') if b['id'] == backend)
        return info['slots']

    def check_bound(self, backend='ram0', size=None, smram=0):
        """All of it is bound that the guest can see, and the rest for a good reason.

        smram: bytes that the firmware has taken, so that only its SMM can see them
        """
        slots = self.slots(backend)
        size = size or self.ram
        hidden = HIDDEN if backend == 'ram0' else 0
        bound = sum(s['size'] for s in slots if s['state'] == 'bound')
        check(size - hidden <= bound + smram <= size, f'{bound} bytes of {size} are bound:', slots)
        for s in slots:
            if s['address-space'] == 1:
                check(s['state'] == 'address-space', slots)
            else:
                check(s['state'] in ('bound', 'alias'), slots)
        # System Management Mode sees RAM in an address space of its own
        smm = sum(s['size'] for s in slots if s['state'] == 'address-space')
        wanted = ARCH == 'x86_64' and 'smm=off' not in self.vm._machine
        check((smm >= size - hidden) if wanted else smm == 0, f'{smm} bytes for SMM:', slots)

    def count_bound(self):
        return sum(s['size'] for s in self.slots() if s['state'] == 'bound')


def test_memory(guest):
    """The guest writes a pattern to its memory and finds it again; bytes tested."""
    tested = int(guest.ask('fill 42'))
    check(int(guest.ask('check 42')) == tested)
    return tested
