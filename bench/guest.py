# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine that runs the guest program of tests/guest-memfd."""

import sys
import time
from collections import namedtuple
from pathlib import Path

from . import host
from .cases import Broken, wait_until
from .goals import SHADOW

sys.path.append(str(Path(__file__).resolve().parents[1] / 'tests/guest-memfd'))
from console import Console, values  # noqa: E402 pylint: disable=wrong-import-position
MIB = 1 << 20
DONE = ('completed', 'failed', 'cancelled')
Touched = namedtuple('Touched', 'seconds faults exits')
PREFAULTED = 'kvm_guest_memfd_prefault gpa 0x0 size 0x0: 0'


class Guest(Console):
    """options: of QEMU; software: whether it runs the guest program, or is only started (-S)"""
    failure = Broken
    patience = 1800

    def __init__(self, env, backend, size, *options, cpus=1, prealloc=False, threads=0,
                 software=True, group=None, incoming=None):
        # Where its modules are is known only when there is a build
        from qemu.machine import QEMUMachine  # pylint: disable=import-outside-toplevel

        self.env, self.backend, self.size = env, backend, size
        memory = backend.object('ram0', size, prealloc, threads)
        self.group = group
        self.software = software
        options = ['-accel', 'kvm', '-cpu', env.cpu, '-smp', str(cpus), '-m', f'{size // MIB}M',
                   '-nodefaults', '-object', memory, *options]
        options += ['-bios', str(env.payload)] if software else ['-S']
        options += ['-incoming', incoming] if incoming else []
        self.incoming = incoming
        program, *loader = env.qemu(backend)[::-1]
        self.vm = QEMUMachine(program, options, qmp_timer=600, base_temp_dir=str(env.tmp),
                              wrapper=(group.wrapper() if group else []) + loader[::-1])
        self.vm.set_machine(f'{env.machine},memory-backend=ram0')
        self.vm.set_console()
        self.greeted = self.ready_after = self.started_after = None

    def __enter__(self):
        start = time.monotonic()
        try:
            with host.huge_pages(self.backend.huge):
                self.vm.launch()
            self.started_after = time.monotonic() - start
            if self.software and not self.incoming:
                self.wait_ready()
                self.ready_after = time.monotonic() - start
        except Exception as e:
            self.__exit__()
            raise Broken(f'QEMU does not start: {e}; {self.vm.get_log() or ""}') from e
        return self

    def __exit__(self, *_):
        self.vm.shutdown(hard=True)
        if self.group:
            self.group.remove()

    @property
    def pid(self):
        return self.vm.get_pid()

    def processor_time(self):
        """Seconds that QEMU has had beside its vCPUs."""
        return host.processor_time(self.pid, {cpu['thread-id']
                                              for cpu in self.vm.cmd('query-cpus-fast')})

    def log(self):
        return Path(self.vm._qemu_log_path).read_text(encoding='utf-8')

    def ask(self, command):
        """What the guest answers, as {name: value}."""
        return values(super().ask(command))

    def word(self, address):
        return int(super().ask(f'read64 {address}'), 0)

    def seconds(self, answer, name='ticks'):
        """What the guest has measured with its own clock."""
        if not self.env.hertz:
            # A line is there and back in some microseconds
            first, start = int(self.ask('clock')['ticks'], 0), time.monotonic()
            time.sleep(0.05 if self.env.breakage else 1)
            self.env.hertz = ((int(self.ask('clock')['ticks'], 0) - first)
                              / (time.monotonic() - start))
        return int(answer[name], 0) / self.env.hertz

    def stats(self):
        """What KVM has counted for all vCPUs: {name: number}."""
        total = {}
        for vcpu in self.vm.cmd('query-stats', target='vcpu',
                                providers=[{'provider': 'kvm', 'names': ['pf_fixed', 'exits']}]):
            for stat in vcpu['stats']:
                total[stat['name']] = total.get(stat['name'], 0) + stat['value']
        return total

    def touch(self, where='all'):
        """The guest writes to each page; faults and exits are those for one page."""
        before = self.stats()
        answer = self.ask(f'touch {where}')
        after = self.stats()
        pages = int(answer['pages'], 0)

        def per_page(name):
            return (after[name] - before[name]) / pages if name in after else None

        return Touched(self.seconds(answer), per_page('pf_fixed'), per_page('exits'))

    def prefaulted(self):
        """Wait until QEMU has filled what it fills of the guest's page tables."""
        if self.backend.gmem and self.env.prefaults:
            self.wait_prefaulted(1)

    def wait_prefaulted(self, times):
        wait_until(lambda: self.log().count(PREFAULTED) >= times)

    def bound(self):
        """How much is bound; for other RAM something that stays the same."""
        return sum(b['bound'] for b in self.vm.cmd('query-guest-memfd')) if self.backend.gmem else 0

    def wait_migration(self, *states):
        def reached():
            info = self.vm.cmd('query-migrate')
            status = info.get('status')
            if status in DONE and status not in states:
                raise Broken(f'migration {status}: {info.get("error-desc")}')
            return status in states
        wait_until(reached)

    def start_and_cancel_migration(self):
        """As far as the log is on, and back; waits until all is as it was again."""
        bound, prefaulted = self.bound(), self.log().count(PREFAULTED)
        self.vm.cmd('migrate-set-parameters', max_bandwidth=MIB)
        self.vm.cmd('migrate', uri='exec:cat > /dev/null')
        self.wait_migration('active')
        wait_until(lambda: 'ram' in self.vm.cmd('query-migrate'))
        self.vm.cmd('migrate_cancel')
        self.wait_migration('cancelled')
        wait_until(lambda: self.bound() == bound)
        # On arm64, KVM fills nothing ahead
        if self.backend.gmem and (self.env.prefaults or self.env.paging == SHADOW):
            self.wait_prefaulted(prefaulted + 1)
