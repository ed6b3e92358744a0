# SPDX-License-Identifier: GPL-2.0-or-later
"""What can happen to a VM of the soak. Each operation is a method do_NAME, and leaves a guest
that runs, with all that it had in its memory.
"""

import collections
import subprocess
import tempfile
import time
from pathlib import Path

from devices import READ, READ_LEN, READ_SEED, Devices, pattern
from guest import (COUNT, COUNT_LEN, DIMM_LEN, DIMM_SLOTS, MIB, VMEM_START, Lost, Process,
                   dimm_address, wait_until)

KEPT, KEPT_LEN = 40 * MIB, 8 * MIB

Shape = collections.namedtuple('Shape', 'machine cpus')


class Machine(Devices):
    """A guest that goes from QEMU to QEMU."""

    def __init__(self, build, tmp, rng, count):
        self.rng, self.build, self.count = rng, build, count
        self.shape = Shape(rng.choice(['pc', 'q35']), rng.randint(1, 4))
        self.disk = Path(tempfile.mkdtemp(dir=tmp)) / 'disk.qcow2'
        subprocess.run([build / 'bin/qemu-img', 'create', '-q', '-f', 'qcow2', self.disk, '1G'],
                       check=True)
        (self.disk.parent / 'raw').write_bytes(pattern(READ, READ_LEN, READ_SEED))
        self.begin()

    def begin(self):
        """A guest that knows nothing of the past."""
        # What it has in its memory: address -> length, and the pattern's seed or None for zeroes
        self.parts = {}
        self.counting = False
        self.saved = None
        self.qemu = Process(self.build, self.shape, self.disk, self.dimms())
        self.cpus()
        self.fill(KEPT, KEPT_LEN)

    def cpus(self):
        if self.shape.cpus > 1:
            self.qemu.ask(f'smp {self.shape.cpus}')

    def dimms(self):
        return [i for i in range(DIMM_SLOTS) if dimm_address(i) in self.parts]

    def fill(self, start, length):
        """Not while the guest counts."""
        seed = self.rng.randrange(1 << 30)
        self.qemu.ask(f'fillr {start} {length} {seed}')
        self.parts[start] = length, seed

    def verify(self):
        """The guest stops counting; it and the other parts of memory are as they must be."""
        if self.counting:
            passes = self.qemu.ask('stop')
            self.count['bytes verified'] += COUNT_LEN * int(passes.split('passes=')[1])
            self.counting = False
        for start, (length, seed) in self.parts.items():
            self.qemu.ask(f'zero {start} {length}' if seed is None else
                          f'checkr {start} {length} {seed}')
            self.count['bytes verified'] += length

    def go_on(self):
        if not self.counting:
            self.qemu.ask(f'count {COUNT} {COUNT_LEN}')
            self.counting = True

    # Operations; each leaves a guest that runs and may be counting

    def do_check(self):
        self.verify()

    def do_dimm(self):
        i = self.rng.randrange(DIMM_SLOTS)
        qemu = self.qemu
        if i in self.dimms():
            qemu.cmd('device_del', id=f'dimm{i}')
            qemu.eject(i)
            qemu.wait_event('DEVICE_DELETED', {'data': {'device': f'dimm{i}'}})
            qemu.cmd('object-del', id=f'mem{i}')
            del self.parts[dimm_address(i)]
        else:
            qemu.cmd('object-add', qom_type='memory-backend-guest-memfd', id=f'mem{i}',
                     size=DIMM_LEN, prealloc=self.rng.random() < .5)
            qemu.cmd('device_add', driver='pc-dimm', id=f'dimm{i}', memdev=f'mem{i}',
                     addr=dimm_address(i), slot=i)
            self.verify()
            self.fill(dimm_address(i), DIMM_LEN)
        self.saved = None

    def do_object(self):
        self.qemu.cmd('object-add', qom_type='memory-backend-guest-memfd', id='spare',
                      size=self.rng.randint(1, 16) << 20, prealloc=True)
        self.qemu.cmd('object-del', id='spare')

    def do_stop(self):
        self.qemu.cmd('stop')
        self.qemu.cmd('query-guest-memfd')
        self.qemu.cmd('cont')

    def do_reset(self):
        self.verify()
        self.qemu.ask('reset')
        self.qemu.wait_ready()
        self.cpus()
        # A reset unplugs the blocks of virtio-mem
        for start in [start for start in self.parts if start >= VMEM_START]:
            del self.parts[start]

    def do_pam(self):
        self.verify()
        for state in 'on', 'off':
            self.qemu.ask(f'pam {state}')

    def do_queries(self):
        for command in ('query-status', 'query-memdev', 'query-memory-devices', 'query-migrate',
                        'query-memory-size-summary', 'query-guest-memfd', 'query-dirty-rate'):
            self.qemu.cmd(command)
        for line in 'info mtree', 'info ramblock', 'info guest-memfd':
            self.qemu.cmd('human-monitor-command', command_line=line)

    def do_dirty_rate(self):
        self.qemu.cmd('calc-dirty-rate', calc_time=1,
                      mode=self.rng.choice(['page-sampling', 'dirty-bitmap']))
        wait_until(lambda: self.qemu.cmd('query-dirty-rate')['status'] == 'measured',
                   'the dirty rate')

    def do_save(self):
        self.verify()
        self.qemu.multifd(False)
        answer = self.qemu.cmd('human-monitor-command', command_line='savevm one')
        if answer:
            raise Lost(f'savevm: {answer}')
        self.saved = dict(self.parts), self.dimms()

    def do_load(self):
        if not self.saved or self.saved[1] != self.dimms():
            return
        self.verify()
        for start, (length, _) in list(self.parts.items()):
            self.fill(start, length)
        self.qemu.multifd(False)
        answer = self.qemu.cmd('human-monitor-command', command_line='loadvm one')
        if answer:
            raise Lost(f'loadvm: {answer}')
        self.parts = dict(self.saved[0])
        self.verify()

    def do_bad_save(self):
        """A snapshot to a place that is not there."""
        self.qemu.cmd('snapshot-save', job_id='bad', tag='bad', vmstate='no-such-node',
                      devices=['no-such-node'])
        wait_until(lambda: any(j['id'] == 'bad' and j['status'] == 'concluded'
                               for j in self.qemu.cmd('query-jobs')), 'a job that fails')
        self.qemu.cmd('job-dismiss', id='bad')

    def do_cancel(self):
        qemu = self.qemu
        qemu.multifd(False)
        qemu.cmd('migrate-set-parameters', max_bandwidth=1 << 20)
        qemu.cmd('migrate', uri='exec:cat > /dev/null')
        qemu.cmd('migrate_cancel')
        qemu.wait_migration()

    def do_broken_stream(self):
        qemu = self.qemu
        qemu.multifd(False)
        qemu.cmd('migrate-set-parameters', max_bandwidth=0)
        qemu.cmd('migrate', uri=f'exec:head -c {self.rng.randint(1, 1 << 20)} > /dev/null')
        qemu.wait_migration()
        if qemu.cmd('query-status')['status'] != 'running':
            qemu.cmd('cont')

    def target(self, incoming='defer'):
        return Process(self.build, self.shape, self.disk, self.dimms(), incoming)

    def start_migration(self, target, bandwidth, downtime=60000):
        """With little of both it lasts: the guest writes more than that in the meantime."""
        multifd = self.rng.random() < .4
        uri = 'tcp:127.0.0.1:0' if multifd else f'unix:{target.tmp}/migration'
        for qemu in self.qemu, target:
            qemu.multifd(multifd)
        target.cmd('migrate-incoming', uri=uri, **{'exit-on-error': False})
        if multifd:
            address, = target.cmd('query-migrate')['socket-address']
            uri = f'tcp:127.0.0.1:{address["port"]}'
        self.qemu.cmd('migrate-set-parameters', max_bandwidth=bandwidth,
                      downtime_limit=downtime)
        self.qemu.cmd('migrate', uri=uri)

    def do_migrate(self):
        target = self.target()
        self.start_migration(target, 0)
        self.go_to(target)

    def go_to(self, target):
        for qemu in self.qemu, target:
            if qemu.wait_migration() != 'completed':
                raise Lost(f'a migration {qemu.status()}: {qemu.cmd("query-migrate")}')
        self.qemu.end()
        self.qemu = target
        if target.cmd('query-status')['status'] != 'running':
            target.wait_event('RESUME')
        self.saved = None

    def do_cpr(self):
        """The files go to another QEMU, and what is in them to one that binds it again."""
        target = self.target('cpr')
        self.qemu.multifd(False)
        self.qemu.cmd('migrate-set-parameters', mode='cpr-transfer')
        self.qemu.cmd('migrate', channels=[
            {'channel-type': kind, 'addr': {'transport': 'socket', 'type': 'unix',
                                            'path': f'{target.tmp}/{name}'}}
            for kind, name in (('main', 'migration'), ('cpr', 'cpr'))])
        target.launched()
        self.go_to(target)
        if {s['state'] for s in self.qemu.unbound()} != {'other-vm'}:
            raise Lost(f'states after CPR: {self.qemu.unbound()}')
        self.do_migrate()

    def do_kill_target(self):
        target = self.target()
        self.start_migration(target, 1 << 20, downtime=1)
        time.sleep(self.rng.random() / 4)
        target.end(hard=True)
        self.qemu.wait_migration()
        if self.qemu.cmd('query-status')['status'] != 'running':
            self.qemu.cmd('cont')
        self.count['kills survived'] += 1

    def do_kill_source(self):
        """The guest is lost with it, but the target ends as it should, and frees its memory."""
        target = self.target()
        self.start_migration(target, 1 << 20, downtime=1)
        # Earlier, the target might wait for a source for ever
        wait_until(lambda: target.status() not in (None, 'none', 'setup'), 'a migration')
        time.sleep(self.rng.random() / 4)
        self.qemu.end(hard=True)
        if target.wait_migration() == 'completed':
            raise Lost('half a migration completed')
        target.end()
        self.count['kills survived'] += 1
        self.begin()


OPERATIONS = [name[3:] for name in dir(Machine) if name.startswith('do_')]
