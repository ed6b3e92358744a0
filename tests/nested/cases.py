#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases that run inside a nested host; the harness is host.py.

usage: cases.py [CASE|GROUP...]
A group is what stands before the first / of cases' names. Prints TAP.
"""

import fcntl
import json
import mmap
import os
import subprocess
import sys
import time
import traceback

import memory
import numa
import top
import vfio
from vm import (ARCH, BACKEND, DEFAULT, MACHINES, MIB, QEMU, RAM, RAM_START, TSEG, Guest, check,
                test_memory, uefi)

CASES = {}


def case(name, *args):
    """Make a case of a function with these arguments."""
    def register(function):
        CASES[name] = lambda: function(*args)
        return function
    return register


def each_machine(group):
    def register(function):
        for name, machine in MACHINES.items():
            case(f'{group}/{name}', machine)(function)
        return function
    return register


def run_to_failure(*args):
    """What a QEMU that refuses to start says."""
    result = subprocess.run([QEMU, '-display', 'none', '-nodefaults', '-accel', 'kvm',
                             '-cpu', 'host', '-m', f'{RAM // MIB}M', *args], text=True,
                            stderr=subprocess.PIPE, timeout=100, check=False)
    print(result.stderr, file=sys.stderr)
    check(result.returncode == 1, 'exit status', result.returncode, result.stderr)
    return result.stderr


@case('host/guest-memfd')
def host_has_guest_memfd():
    kvm = os.open('/dev/kvm', os.O_RDWR)
    vm = fcntl.ioctl(kvm, 0xae01)               # KVM_CREATE_VM
    flags = fcntl.ioctl(vm, 0xae03, 244)        # KVM_CAP_GUEST_MEMFD_FLAGS
    check(flags & 3 == 3, f'KVM_CAP_GUEST_MEMFD_FLAGS is {flags:#x}')


def host_check(status, words):
    """What contrib/guest-memfd says of this host, which is known to be like that."""
    result = subprocess.run(['python3', '/contrib/guest-memfd/guest-memfd-host-check', '--json'],
                            text=True, stdout=subprocess.PIPE, timeout=100, check=False)
    print(result.stdout, file=sys.stderr)
    report = json.loads(result.stdout)
    check(result.returncode == report['exit'] == status, report)
    check(words in report['verdict'], report)
    missing = [row['check'] for row in report['checks'] if row['verdict'] == 'missing']
    check(bool(missing) == (status == 2), 'missing:', missing)


case('host/check', 0, 'bound')(host_check)
case('old-kernel/check', 2, 'boot Linux 6.18')(host_check)
case('bad-kernel/check', 1, 'use Linux 7.1')(host_check)


@each_machine('payload')
def payload(machine):
    with Guest(machine, backend=BACKEND + ',kvm-bind=on', cpus=2) as guest:
        guest.ready()
        guest.check_bound()
        if ARCH == 'x86_64':
            guest.ask('pam on')
        guest.ask('smp 2')
        check(test_memory(guest) >= RAM - 2 * MIB)
        guest.ask(f'exec {RAM_START + 64 * MIB:#x}')
        guest.check_bound()


@each_machine('linux')
def linux(machine, cpus=1):
    with Guest(machine, linux=True, cpus=cpus) as guest:
        info = guest.ready()
        check(int(info['cpus']) == cpus, info)
        guest.check_bound()
        check(test_memory(guest) > RAM // 3)
        guest.check_bound()
        guest.ask('halt')
        guest.vm.wait(300)


case('linux/2-cpus', DEFAULT, 2)(linux)
case('gic/2', 'virt,gic-version=2', 2)(linux)


@case('linux/reboots')
def reboots():
    """Five, and before each the guest's memory has been changed in another way."""
    ways = [test_memory, memory.balloon, memory.virtio_mem]
    # Firmware with ACPI tells of a DIMM and of machine checks; on arm64 that is UEFI
    ways += [memory.dimm] if ARCH == 'x86_64' else [test_memory]
    with Guest(DEFAULT, *memory.DEVICES, linux=True) as guest:
        for change in ways:
            guest.ready()
            guest.check_bound()
            change(guest)
            guest.ask('reset')
            guest.start = time.monotonic()
        guest.ready()
        guest.check_bound()
        if ARCH == 'x86_64':
            memory.poison(guest)
        else:
            guest.ask('reset')
        guest.ready()
        guest.check_bound()


if ARCH == 'x86_64':
    @case('uefi/q35', 'q35,smm=on')
    @case('uefi/q35-smm-off', 'q35,smm=off')
    def boot_uefi(machine):
        # TSEG, and the 128 KiB around the address where each CPU enters SMM at first
        smram = 0 if 'smm=off' in machine else TSEG + (128 << 10)
        with Guest(machine, *uefi(machine), linux=True) as guest:
            guest.ready()
            guest.check_bound(smram=smram)
            test_memory(guest)
else:
    @case('uefi/virt')
    def boot_uefi():
        """With ACPI, and so with DIMMs and machine checks."""
        # The firmware has the kernel twice in memory
        with Guest(f'{DEFAULT},ras=on', *uefi(DEFAULT), *memory.BASICS, linux=True,
                   ram=256 * MIB) as guest:
            guest.ready()
            guest.check_bound()
            memory.dimm(guest)
            memory.poison(guest)


if ARCH == 'x86_64':
    @case('smm/alias')
    def smm_alias():
        """SeaBIOS opens SMRAM, of which the address space then has a second view."""
        with Guest('q35,smm=on', '-trace', 'kvm_guest_memfd_*', linux=True) as guest:
            guest.ready()
            lines = [line for line in guest.log().splitlines() if 'alias' in line]
            check(any('0xfeda0000' in line for line in lines), 'no alias at 0xfeda0000:', lines)


def finish_migration(vm, wanted='completed'):
    while (status := vm.cmd('query-migrate')['status']) != wanted:
        check(status not in ('failed', 'cancelled'), vm.cmd('query-migrate'))
        time.sleep(0.1)


def count_at(guest, offset):
    """What the payload, which counts in all RAM, has in a page of it."""
    line = guest.vm.cmd('human-monitor-command',
                        command_line=f'xp /1gx {RAM_START + offset:#x}')
    return int(line.split()[1], 0)


def migrate(linux, cpus):
    """The guest counts in its memory while it moves, and finds no write lost or doubled."""
    with Guest(DEFAULT, linux=linux, cpus=cpus) as source, \
            Guest(DEFAULT, '-incoming', 'unix:/tmp/migration', linux=linux, cpus=cpus) as target:
        source.ready()
        source.check_bound()
        if not linux:
            source.ask(f'smp {cpus}')
        source.ask('count' if linux else 'count all')
        source.vm.cmd('migrate-set-parameters', max_bandwidth=50 * MIB, downtime_limit=1)
        source.vm.cmd('migrate', uri='unix:/tmp/migration')
        while source.vm.cmd('query-migrate').get('ram', {}).get('dirty-sync-count', 0) < 2:
            time.sleep(0.1)
        states = {s['state'] for s in source.slots()}
        check(source.count_bound() == 0 and 'dirty-log' in states, source.slots())
        source.vm.cmd('migrate-set-parameters', max_bandwidth=0, downtime_limit=60000)
        finish_migration(source.vm)
        finish_migration(target.vm)
        if not linux:
            # One pass at least, of each CPU, however slow it is
            memory.wait_until(lambda: min(count_at(target, target.ram // 4),
                                          count_at(target, target.ram - 4096)) > 1,
                              'the guest counts')
        passes = target.ask('stop')
        check(passes.startswith('passes=') and (linux or int(passes[7:]) > 0), passes)
        test_memory(target)
        target.check_bound()


case('migration/payload', False, 2)(migrate)
case('migration/linux', True, 2)(migrate)


def run_qtest(program, path=None, **env):
    """Cases of a qtest, or all of it; what they say is a comment."""
    command = [f'tests/qtest/{program}', '--tap', '-k']
    if path:
        command += ['-p', f'/{ARCH}/{path}']
    passed = 0
    with subprocess.Popen(command, cwd='/qemu', text=True, stdout=subprocess.PIPE,
                          env={**os.environ, **env}) as process:
        for line in process.stdout:
            print('#', line.rstrip(), flush=True)
            passed += line.startswith('ok ') and 'SKIP' not in line
    check(process.returncode == 0 and passed, f'exit status {process.returncode}, {passed} passed')


def qtest(program, path):
    """Ours, which all run natively on x86."""
    run_qtest(f'guest-memfd-{program}', f'guest-memfd/{path}')


if ARCH != 'x86_64':
    for name in ('cpr', 'discard', 'file', 'holes', 'hotplug', 'migration', 'snapshot', 'switch'):
        case(f'all/{name}', f'guest-memfd-{name}-test')(run_qtest)

    # Its dumps read 64 KiB at once
    case('qtest/readers', 'holes-test', 'holes/readers')(qtest)

    @case('qemu/precopy', 'precopy/unix/plain')
    @case('qemu/multifd', 'multifd/tcp/uri/plain/none')
    def qemu_migration(path):
        """QEMU's own test, with our RAM; on x86 it runs natively."""
        run_qtest('migration-test', f'migration/{path}',
                  QTEST_QEMU_BINARY=f'./on-guest-memfd/qemu-system-{ARCH}')


if ARCH == 'x86_64':
    # The host's kernel reads and writes packets in bound RAM
    case('vhost/net', 'net-test', 'net/vhost')(qtest)
case('qtest/savevm', 'snapshot-test', 'snapshot/save-and-load/4-cpus')(qtest)
KIND = {'x86_64': 'q35', 'aarch64': 'virt-smp'}[ARCH]
case('qtest/dimm', 'hotplug-test', f'hotplug/dimm/{KIND}')(qtest)
case('qtest/hotplug', 'hotplug-test', f'hotplug/mixed/{KIND}')(qtest)
case('qtest/cpr', 'cpr-test', f'cpr/transfer/{KIND}')(qtest)


if ARCH == 'x86_64':
    @case('vfio/dma')
    def vfio_dma():
        """A device of the host reads and writes bound RAM, all of which it has pinned."""
        source, target = 64 * MIB, 65 * MIB
        host = memory.HostMemory()
        with Guest(DEFAULT, *vfio.options()) as guest:
            guest.ready()
            guest.check_bound()
            host.check_risen(RAM)
            guest.ask(f'fillr {source} {vfio.Edu.SIZE} 1')
            guest.ask(f'zero {target} {vfio.Edu.SIZE}')
            vfio.Edu().copy(source, target)
            for offset in range(0, vfio.Edu.SIZE, 256):
                values = {guest.ask(f'read64 {page + offset}') for page in (source, target)}
                check(len(values) == 1, 'at', offset, values)

    @case('vfio/balloon')
    def vfio_balloon():
        """What a device has pinned must stay where it is: nothing is discarded then."""
        with Guest(DEFAULT, *memory.BALLOON, *vfio.options(), linux=True) as guest:
            guest.ready()
            memory.balloon(guest, pinned=True)


if ARCH == 'x86_64':
    # The end of a trace of what KVM_PRE_FAULT_MEMORY did
    END_OF_PREFAULT = 'gpa 0x0 size 0x0: 0'

    def preallocated(accel='kvm'):
        return Guest(DEFAULT, '-trace', 'kvm_guest_memfd_prefault', accel=accel,
                     backend=f'{BACKEND},kvm-bind=on,prealloc=on')

    @case('faults/prealloc')
    def faults_prealloc():
        """What was preallocated is in the guest's page tables, and changes of RAM at ROMs'
        addresses leave it there."""
        with preallocated() as guest:
            guest.ready()
            memory.wait_until(lambda: END_OF_PREFAULT in guest.log(), 'all is prefaulted')
            guest.check_bound()
            check(memory.mapped(guest) < RAM // 10, 'QEMU has page tables that KVM does not need')
            memory.test_faults(guest, few=True)
            guest.ask('pam on')
            memory.test_faults(guest, few=True)

    @case('faults/cancelled')
    def faults_cancelled():
        """A migration that was cancelled costs the guest no faults later."""
        with preallocated() as guest:
            guest.ready()
            memory.wait_until(lambda: END_OF_PREFAULT in guest.log(), 'all is prefaulted')
            # As a balloon would, which costs memory that is not to come back
            memory.gmem_file(guest, RAM).madvise(mmap.MADV_REMOVE, RAM // 2, RAM // 4)
            left = memory.resident(guest)
            guest.vm.cmd('migrate-set-parameters', max_bandwidth=1)
            guest.vm.cmd('migrate', uri='exec:cat > /dev/null')
            memory.wait_until(lambda: guest.vm.cmd('query-migrate')['status'] == 'active' and
                              not guest.count_bound(), 'the migration logs')
            guest.vm.cmd('migrate_cancel')
            memory.wait_until(lambda: guest.log().count(END_OF_PREFAULT) == 2,
                              'all is prefaulted again')
            guest.check_bound()
            check(memory.resident(guest) == left, memory.resident(guest), 'bytes, not', left)
            test_memory(guest)
            memory.test_faults(guest, few=True)

    @case('faults/migrated')
    def faults_migrated():
        """What has come by migration is in the page tables of the target's guest."""
        with preallocated() as source, \
                Guest(DEFAULT, '-incoming', 'unix:/tmp/migration', '-trace',
                      'kvm_guest_memfd_prefault') as target:
            source.ready()
            test_memory(source)
            source.vm.cmd('migrate', uri='unix:/tmp/migration')
            finish_migration(source.vm)
            finish_migration(target.vm)
            memory.wait_until(lambda: END_OF_PREFAULT in target.log(), 'all is prefaulted')
            target.check_bound()
            memory.test_faults(target, few=True)

    @case('shadow/prealloc')
    def shadow_prealloc():
        """Where KVM shadows page tables it takes what it needs from those of QEMU."""
        with preallocated() as guest:
            guest.ready()
            guest.check_bound()
            check(memory.mapped(guest) == RAM, memory.mapped(guest), 'bytes are mapped')
            test_memory(guest)

    @case('faults/zap-all')
    def faults_zap_all():
        """As KVM does by default, all page tables go with any memslot."""
        with preallocated('kvm,slot-zap-all=on') as guest:
            guest.ready()
            test_memory(guest)
            memory.test_faults(guest, few=True)
            guest.ask('pam on')
            memory.test_faults(guest, few=False)

    @case('faults/no-prealloc')
    def faults_no_prealloc():
        with Guest(DEFAULT, backend=BACKEND + ',kvm-bind=on') as guest:
            guest.ready()
            memory.test_faults(guest, few=False)
            memory.test_faults(guest, few=True)


if ARCH == 'x86_64':
    case('numa/policy')(numa.policy)
    case('numa/confined')(numa.confined)


@case('top/two-vms')
def top_two_vms():
    with Guest(DEFAULT, *top.options('one')) as one, Guest(DEFAULT, *top.options('two')) as two:
        top.two_vms(one, two)


@case('old-kernel/refused')
def refused():
    """A kernel without a mappable guest_memfd: one sentence that says what helps."""
    said = run_to_failure('-object', f'{BACKEND},size={RAM}',
                          '-machine', f'{DEFAULT},memory-backend=ram0')
    check('Linux 6.18' in said and said.count('\n') == 1, said)


# libvirt's, which permits neither a fork nor another program
SANDBOX = ['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,'
                       'resourcecontrol=deny']


@case('sandbox/bound')
def sandbox():
    """Whatever QEMU has to find out about KVM, it can do so in libvirt's sandbox."""
    with Guest(DEFAULT, *SANDBOX, backend=BACKEND + ',kvm-bind=on') as guest:
        guest.ready()
        guest.check_bound()
        test_memory(guest)


@case('bad-kernel/auto')
@case('bad-kernel/auto-sandbox', *SANDBOX)
def kernel_bug_auto(*options):
    """Linux boots where KVM hangs on execution from bound slots, as none is bound."""
    with Guest(DEFAULT, *options, linux=True) as guest:
        guest.ready()
        check({s['state'] for s in guest.slots()} == {'kernel-bug'}, guest.slots())
        test_memory(guest)
        guest.ask('halt')
        guest.vm.wait(300)


@case('bad-kernel/on')
@case('bad-kernel/on-sandbox', *SANDBOX)
def kernel_bug_on(*options):
    said = run_to_failure('-object', f'{BACKEND},size={RAM},kvm-bind=on', *options,
                          '-machine', f'{DEFAULT},memory-backend=ram0')
    check('kvm-bind' in said and '7.1' in said, said)


@case('pages/size')
def page_size():
    """A file is made of the host's pages, and so is RAM."""
    pages = os.sysconf('SC_PAGE_SIZE')
    check(pages > 4096, 'a page of this host has', pages)
    said = run_to_failure('-object', f'{BACKEND},size={RAM + 4096}',
                          '-machine', f'{DEFAULT},memory-backend=ram0')
    check("property 'size'" in said and f'{pages // 1024} KiB' in said, said)


@case('mte/refused')
def memory_tags():
    """KVM has tags for other RAM, but then no memslot at all for guest_memfd's: we say so."""
    machine = f'{DEFAULT},mte=on'
    for bind in 'auto', 'on', 'off':
        said = run_to_failure('-object', f'{BACKEND},size={RAM},kvm-bind={bind}',
                              '-machine', f'{machine},memory-backend=ram0')
        check('memory tags' in said and 'mte=off' in said and said.count('\n') == 1, said)
    with Guest(machine, backend='memory-backend-ram,id=ram0') as guest:
        guest.ready()


@case('mte/off')
def memory_tags_off():
    with Guest(DEFAULT, backend=BACKEND + ',kvm-bind=on') as guest:
        guest.ready()
        guest.check_bound()
        guest.ask(f'exec {RAM_START + 64 * MIB:#x}')


def main():
    wanted = sys.argv[1:]
    names = [n for n in CASES if not wanted or n in wanted or n.partition('/')[0] in wanted]
    if not names or any(w not in {*CASES, *(n.partition('/')[0] for n in CASES)} for w in wanted):
        sys.exit(f'error: there are the cases {" ".join(CASES)}')
    failed = False
    print(f'1..{len(names)}', flush=True)
    for number, name in enumerate(names, 1):
        print(f'--- {name}', file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            CASES[name]()
            result = 'ok'
        except Exception as e:  # pylint: disable=broad-except
            traceback.print_exc()
            print('# ' + f'{type(e).__name__}: {e}'.replace('\n', '\n# '))
            result, failed = 'not ok', True
        print(f'# {time.monotonic() - start:.1f} s')
        print(f'{result} {number} {name}', flush=True)
    sys.exit(failed)


if __name__ == '__main__':
    main()
