# SPDX-License-Identifier: GPL-2.0-or-later
"""contrib/guest-memfd/guest-memfd-top, beside what guests do with their memory."""

import json
import subprocess
import sys

from memory import wait_until
from vm import MIB, RAM_START, check

PROGRAM = '/contrib/guest-memfd/guest-memfd-top'
FIGURES = ('size', 'allocated', 'bound', 'mapped', 'switches', 'max-inhibit-us')


def options(name):
    """Of a VM that can be asked by its name."""
    return ['-name', name, '-qmp', f'unix:{path(name)},server=on,wait=off']


def path(name):
    return f'/tmp/{name}.qmp'


def ask(*names, status=0):
    """What the program says of these VMs, by their names, and of all."""
    result = subprocess.run(['python3', PROGRAM, '--json', '--timeout', '100',
                             *(path(n) for n in names)], text=True, stdout=subprocess.PIPE,
                            timeout=300, check=False)
    print(result.stdout, file=sys.stderr)
    check(result.returncode == status, 'exit status', result.returncode)
    report = json.loads(result.stdout)
    return {vm['name']: vm for vm in report['vms']}, report['total']


def check_as_qemu_says(guests):
    """The program tells what QEMU does, and sums it up; what it says of these VMs."""
    vms, total = ask(*guests)
    check(set(vms) == set(guests), vms)
    for name, guest in guests.items():
        check(vms[name]['error'] is None, vms[name])
        backend, = guest.vm.cmd('query-guest-memfd')
        for figure in FIGURES:
            check(vms[name]['backends'][0][figure] == vms[name][figure] == backend[figure],
                  figure, 'of', name, vms[name], backend)
    for figure in FIGURES[:-1]:
        check(total[figure] == sum(vm[figure] for vm in vms.values()), figure, total, vms)
    return vms


def two_vms(one, two):
    guests = {'one': one, 'two': two}
    touched = {'one': 32 * MIB, 'two': 8 * MIB}
    for guest in guests.values():
        guest.ready()
        # So that the guest has used by now what it uses for the command itself
        guest.ask(f'fillr {RAM_START + 48 * MIB:#x} 4096 1')
    before = check_as_qemu_says(guests)
    for name, guest in guests.items():
        guest.ask(f'fillr {RAM_START + 64 * MIB:#x} {touched[name]} 1')
    vms = check_as_qemu_says(guests)
    for name in guests:
        grown = vms[name]['allocated'] - before[name]['allocated']
        check(grown == touched[name], name, 'has touched', touched[name], 'more, and has', grown)

    # Measuring the dirty rate takes memslots off the file, and puts them back
    bound = vms['one']['bound']
    one.vm.cmd('calc-dirty-rate', calc_time=1, mode='dirty-bitmap')
    wait_until(lambda: one.vm.cmd('query-dirty-rate')['status'] == 'measured', 'measured')
    wait_until(lambda: one.count_bound() == bound, 'bound again')
    vms = check_as_qemu_says(guests)
    check(vms['one']['switches'] > 0 and vms['one']['max-inhibit-us'] > 0, vms)
    check(vms['two']['switches'] == 0, vms)

    # One that has gone is a sentence, and nothing to the other
    two.vm.shutdown(hard=True)
    vms, total = ask(*guests, status=1)
    check('may have ended' in vms[path('two')]['error'], vms)
    check(vms['one']['allocated'] == total['allocated'] > 0, vms, total)
