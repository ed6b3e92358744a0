# SPDX-License-Identifier: GPL-2.0-or-later
"""Show a live migration of a guest that writes: where its memory is, from moment to moment.

Part of demo.py. The guest counts in one part of its RAM, and reports a write that was lost or
done twice; the rest has a pattern, which it checks on the other side.
"""

import random
import tempfile
import time

from demo import COMMON, MIB, RAM, Failed, Guest, check, remark_on_times, show

MACHINE = 'q35,memory-backend=ram0'
COUNTED = (32 * MIB, 64 * MIB)          # start, length: clear of the guest's program
FILLED = (128 * MIB, 256 * MIB)
WIDTH = 24
MARKS = {'bound': '#', 'dirty-log': '=', 'switching': '~'}
OTHER = '.'
# Of memory that is in another memslot, too
VIEWS = ('alias', 'address-space')
ROUNDS = 3
INTERVAL = 0.05         # between two looks, in seconds: a look costs the guest, too


def states(vm):
    """Bytes of guest memory by state."""
    sizes = {}
    for slot in vm.cmd('query-guest-memfd')[0]['slots']:
        sizes[slot['state']] = sizes.get(slot['state'], 0) + slot['size']
    return sizes


def bar(sizes):
    """A state has at least one character, so that a part in passing is seen."""
    sizes = {state: size for state, size in sizes.items() if state not in VIEWS}
    total = sum(sizes.values())
    widths = {state: max(1, round(WIDTH * size / total)) for state, size in sizes.items()}
    widths[max(widths, key=widths.get)] += WIDTH - sum(widths.values())
    order = sorted(widths, key=lambda state: [*MARKS, state].index(state))
    return '[' + ''.join(MARKS.get(state, OTHER) * widths[state] for state in order) + ']'


class Chart:
    """A line whenever the states have changed."""

    def __init__(self, source, target):
        self.vms = source, target
        self.start = time.monotonic()
        self.last = None
        print(f'\n  {"":>8}  {"source":<{WIDTH + 2}}  {"target":<{WIDTH + 2}}')

    def sample(self, note=''):
        """Returns how the target's memory is."""
        found = [states(vm) for vm in self.vms]
        bars = [bar(sizes) for sizes in found]
        if note or bars != self.last:
            now = time.monotonic() - self.start
            print(f'  {now:6.2f} s  {bars[0]}  {bars[1]}  {note}'.rstrip(), flush=True)
        self.last = bars
        return found[1]


def migrate(source, target, chart, path):
    """Let it write for some rounds; then it may stop for as long as the last round takes."""
    target.cmd('migrate-incoming', uri=f'unix:{path}')
    chart.sample('the guest counts')
    source.cmd('migrate', uri=f'unix:{path}')
    note, relaxed = 'the migration begins', False
    while True:
        chart.sample(note)
        note = ''
        progress = source.cmd('query-migrate')
        status = progress.get('status')
        time.sleep(INTERVAL)
        check(status not in ('failed', 'cancelled'),
              f'the migration has {status}: {progress.get("error-desc", "")}')
        if status == 'completed':
            return progress
        if not relaxed and progress.get('ram', {}).get('dirty-sync-count', 0) >= ROUNDS:
            source.cmd('migrate-set-parameters', **{'downtime-limit': 2000 * 1000})
            note, relaxed = f'after {ROUNDS} rounds the guest may be stopped', True


def wait_until_bound(target, chart):
    """The target binds what was not; a state is waited for, not a time."""
    deadline = time.monotonic() + 300
    while 'switching' in chart.sample() or 'dirty-log' in states(target):
        check(time.monotonic() < deadline, f'not bound on the target: {states(target)}')


def show_migration(emulator, payload):
    from qemu.machine import QEMUMachine
    from qemu.machine.machine import VMLaunchFailure

    args = [*COMMON, '-bios', payload, '-nodefaults']
    with tempfile.TemporaryDirectory(prefix='guest-memfd-demo-') as scratch, \
            QEMUMachine(emulator, args, name='source') as source, \
            QEMUMachine(emulator, [*args, '-incoming', 'defer'], name='target') as target:
        for vm in source, target:
            vm.set_machine(MACHINE)
            vm.set_console()
            try:
                vm.launch()
            except VMLaunchFailure as e:
                raise Failed(f'QEMU does not start:\n{e.output or e}') from e
        guest, moved = Guest(source), Guest(target)
        show('guest', guest.hear())
        seed = random.getrandbits(32)
        guest.ask(f'fillr {FILLED[0]:#x} {FILLED[1]:#x} {seed}')
        guest.ask(f'count {COUNTED[0]:#x} {COUNTED[1]:#x}')
        chart = Chart(source, target)
        progress = migrate(source, target, chart, f'{scratch}/socket')
        wait_until_bound(target, chart)
        chart.sample('the guest counts on the other side')
        print(f'\n  # bound   = dirty-log: KVM logs what the guest writes   ~ switching   '
              f'{OTHER} other\n')

        passes = int(moved.ask('stop').partition('passes=')[2])
        check(passes > 0, 'the guest has not counted')
        moved.ask(f'checkr {FILLED[0]:#x} {FILLED[1]:#x} {seed}')
        summary(source, target, progress, passes)


def summary(source, target, progress, passes):
    stops = [max(b['max-inhibit-us'] for b in vm.cmd('query-guest-memfd'))
             for vm in (source, target)]
    bound = states(target).get('bound', 0)
    show('contents', f'{passes} times the guest added 1 to each of {COUNTED[1] // 4096} pages: no '
         f'write was lost or done twice; {FILLED[1] // MIB} MiB are as they were filled')
    show('stops', f'{stops[0] / 1000:.1f} ms was the longest wait of a vCPU for a switch on the '
         f'source, {stops[1] / 1000:.1f} ms on the target; {progress["downtime"]} ms was the stop '
         'for the last round, which all live migrations have')
    show('target', f'{bound / MIB:.1f} of {RAM // MIB} MiB are bound; a PC hides the rest behind '
         'VGA and ROMs')
    remark_on_times()
    print(f'\nThe guest moved in {progress["total-time"] / 1000:.1f} s while it wrote, from one '
          'guest_memfd to another.')
