# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM of the soak: its guest verifies its memory all the time, and its driver does things."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from bench.host import listens
from console import Console
from qemu.machine import QEMUMachine
from qemu.machine.qtest import QEMUQtestProtocol

MIB = 1 << 20
RAM = 96 * MIB
COUNT, COUNT_LEN = 16 * MIB, 16 * MIB
DIMM_LEN = 16 * MIB
DIMM_SLOTS = 2
VMEM_LEN = 16 * MIB
VMEM_START = 8 << 30
# On the first PCI bus
VMEM_SLOT, BACKEND_SLOT = 5, 6
# Against hangs alone
LIMIT = int(os.environ.get("LIMIT") or 600)


class Lost(Exception):
    """What must not be: memory, an answer, or the guest."""


def wait_until(condition, what):
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise Lost(f'not within {LIMIT} s: {what}')
        time.sleep(0.01)


def dimm_address(i):
    return (4 + i) << 30


class Process(Console):
    """A QEMU, whose guest is the payload of tests/guest-memfd."""
    failure = Lost
    patience = LIMIT
    names = itertools.count()

    def __init__(self, build, shape, disk, dimms, incoming=None):
        """incoming: None, 'defer', or 'cpr': then it is launched when its files have come."""
        self.tmp = Path(tempfile.mkdtemp(prefix='soak-', dir=disk.parent))
        self.build, self.disk = build, disk
        self.start_backend()
        arch = os.uname().machine
        args = ['-accel', 'kvm', '-cpu', 'host,-arch-capabilities', '-nodefaults',
                '-smp', str(shape.cpus), '-m', f'{RAM // MIB}M,slots={DIMM_SLOTS},maxmem=16G',
                '-object', f'memory-backend-guest-memfd,id=ram0,size={RAM}',
                '-bios', str(build / f'qemu/tests/guest-memfd/payload-{arch}.bin'),
                '-drive', f'if=none,id=disk0,file={disk},file.locking=off',
                '-device', 'virtio-balloon-pci,disable-legacy=on',
                '-object', f'memory-backend-guest-memfd,id=vmem,size={VMEM_LEN}',
                '-device', f'virtio-mem-pci,id=vmem0,memdev=vmem,memaddr={VMEM_START},'
                           f'addr={VMEM_SLOT}',
                '-chardev', f'socket,id=backend,path={self.tmp}/backend,reconnect-ms=100',
                '-device', f'vhost-user-blk-pci,chardev=backend,num-queues=1,addr={BACKEND_SLOT}',
                '-qtest', f'unix:{self.tmp}/qtest,server=on,wait=off', '-qtest-log', '/dev/null']
        for i in dimms:
            args += ['-object', f'memory-backend-guest-memfd,id=mem{i},size={DIMM_LEN}',
                     '-device', f'pc-dimm,id=dimm{i},memdev=mem{i},addr={dimm_address(i)},slot={i}']
        if incoming:
            args += ['-incoming', 'defer' if incoming == 'defer' else f'unix:{self.tmp}/migration']
        if incoming == 'cpr':
            args += ['-incoming', 'cpr,addr.transport=socket,addr.type=unix,'
                                  f'addr.path={self.tmp}/cpr']
        self.vm = QEMUMachine(str(build / f'bin/qemu-system-{arch}'), args,
                              name=f'soak-{os.getpid()}-{next(self.names)}', qmp_timer=LIMIT)
        self.vm.set_machine(f'{shape.machine},memory-backend=ram0,aux-ram-share=on')
        self.vm.set_console()
        self.launching = threading.Thread(target=self.vm.launch)
        self.launching.start()
        if incoming == 'cpr':
            wait_until(lambda: listens(self.tmp / 'cpr'), 'a QEMU that waits for its files')
        else:
            self.launched()
        if not incoming:
            self.wait_ready()

    def start_backend(self):
        """The process behind the vhost-user disk, which maps and writes the guest's memory."""
        path = self.tmp / 'backend'
        path.unlink(missing_ok=True)
        self.backend = subprocess.Popen([       # pylint: disable=consider-using-with
            'setpriv', '--pdeathsig', 'KILL',
            self.build / 'qemu/storage-daemon/qemu-storage-daemon',
            '--blockdev', f'file,node-name=raw,read-only=on,filename={self.disk.parent}/raw',
            '--export', 'vhost-user-blk,id=raw,node-name=raw,'
                        f'addr.type=unix,addr.path={path}'])
        wait_until(lambda: listens(path), 'a vhost-user back end')

    def end_backend(self):
        self.backend.kill()
        self.backend.wait()

    def backend_is_there(self):
        return not any(c['label'] == 'backend' and 'disconnected' in c['filename']
                       for c in self.vm.cmd('query-chardev'))

    def launched(self):
        self.launching.join()

    def __getattr__(self, name):
        return getattr(self.vm, name)

    def qtest(self):
        """What reaches the devices as the guest's processor does; to be closed."""
        qtest = QEMUQtestProtocol(f'{self.tmp}/qtest')
        qtest.connect()
        return qtest

    def eject(self, slot):
        """What a guest's ACPI code does when it is asked to give up the DIMM of a slot."""
        with contextlib.closing(self.qtest()) as qtest:
            for command in f'outl 0xa00 {slot}', 'outb 0xa14 8':
                if not qtest.cmd(command).startswith('OK'):
                    raise Lost(f'qtest refuses {command}')

    def wait_event(self, name, match=None):
        # For QEMU's Python a time that is no float is for ever
        if not self.vm.event_wait(name, float(LIMIT), match):
            raise Lost(f'no event {name} within {LIMIT} s')

    def info(self):
        return {b['id']: b for b in self.vm.cmd('query-guest-memfd')}

    def unbound(self):
        return [s for b in self.info().values() for s in b['slots']
                if s['address-space'] == 0 and s['state'] not in ('bound', 'alias')]

    def wait_bound(self):
        try:
            wait_until(lambda: not self.unbound(), 'all RAM is bound again')
        except Lost as error:
            raise Lost(f'{error}: {self.unbound()}, {self.vm.cmd("query-status")}, '
                       f'{self.vm.cmd("query-migrate")}') from error

    def multifd(self, on):
        self.vm.cmd('migrate-set-capabilities', capabilities=[
            {'capability': 'multifd', 'state': on}, {'capability': 'events', 'state': True}])

    def status(self):
        return self.vm.cmd('query-migrate').get('status')

    def wait_migration(self):
        wait_until(lambda: self.status() in ('completed', 'failed', 'cancelled'),
                   'the end of a migration')
        return self.status()

    def end(self, hard=False):
        """As a user would, or as the host's memory killer does."""
        if hard and self.vm.is_running():
            os.kill(self.vm.get_pid(), signal.SIGKILL)
            wait_until(lambda: not self.vm.is_running(), 'a process that was killed')
            try:
                self.vm.shutdown(hard=True)
            except Exception:                   # pylint: disable=broad-exception-caught
                pass
        elif not hard:
            self.vm.shutdown()
            if self.vm.exitcode():
                raise Lost(f'QEMU ended with status {self.vm.exitcode()}')
        self.end_backend()
        shutil.rmtree(self.tmp, ignore_errors=True)
