# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure all items in turns, round after round, and go on when something fails.

What happens is told as messages, which are plain data: they may come from another machine.
    {'machine': {...}}            the first one
    {'note': SENTENCE}            something is left out
    {'rounds': N}                 how many will count
    {'case': NAME, 'size': GIB, 'backend': NAME, 'metrics': {...}, 'error': SENTENCE or None}
    {'load': N}                   how busy the machine is, after each round
    {'complete': True}            the last one
"""

import time
from dataclasses import dataclass

from . import bare, host, machine, schedule
from .backends import BACKENDS, BARE
from .cases import GIB, Broken
from .environment import Run


def apply(results, message):
    """Take what a message tells into the results."""
    if 'metrics' in message:
        results.add(message['case'], message['size'], message['backend'], message['metrics'])
    if message.get('error'):
        results.notes.append(f'{message["case"]} {message["size"]:g} GiB, {message["backend"]}: '
                             f'{message["error"]}')
    if 'note' in message:
        results.notes.append(message['note'])
    if 'load' in message:
        results.loads.append(message['load'])
    for name in 'machine', 'rounds', 'complete':
        if name in message:
            setattr(results, name, message[name])


@dataclass(frozen=True)
class Item:
    case: object
    size: float
    players: tuple

    def __str__(self):
        return f'{self.case.name} {self.size:g} GiB'


def players(case, size, kinds, notes):
    """Those of the kinds of RAM that this host has."""
    for name in case.backends:
        if name not in kinds:
            continue
        why = BACKENDS[name].why_not(int(size * GIB))
        if why:
            notes.append(f'{name}: {why}')
        else:
            yield name
    if case.bare:
        yield BARE


def plan(cases, sizes, env, kinds, all_sizes=True):
    """The items that this machine can measure, and sentences on those that it cannot."""
    free = host.meminfo()['MemAvailable']
    items, notes = [], []
    for case in cases:
        if case.archs and machine_arch(env) not in case.archs:
            notes.append(f'{case.name}: only on {", ".join(case.archs)}')
            continue
        own = case.sizes if all_sizes else (case.quick,)
        for size in sizes or ((case.small / 1024,) if env.breakage else own):
            need = int(size * GIB) * case.copies
            if need > free * 0.9:
                notes.append(f'{case.name} {size:g} GiB: {need >> 20} MiB of memory are needed')
                continue
            items.append(Item(case, size, tuple(players(case, size, kinds, notes))))
    return items, list(dict.fromkeys(notes))


def machine_arch(env):
    return 'aarch64' if env.ram_start else 'x86_64'


class Runner:
    """emit: function that gets the messages; progress: what is being done, and the seconds left"""

    def __init__(self, env, emit, progress):
        self.env, self.emit, self.progress = env, emit, progress
        self.costs, self.done = {}, {}
        self.rounds = 1

    def measure(self, item, player):
        """The figures, and why there are none."""
        size = int(item.size * GIB)
        run = Run(self.env, BACKENDS.get(player), size)
        try:
            if player == BARE:
                program = bare.build(self.env.build)
                value = bare.measure(program, *item.case.bare(run))
                return {item.case.bare_metric: value}, None
            if not self.env.memory_stays_warm:
                self.warm([item], run.backend.gmem)
            metrics = item.case.measure(run)
            for name, value in metrics.items():
                if value is None and not item.case.metrics[name].optional or \
                        value is not None and value < 0:
                    raise Broken(f'{name} is {value}')
            return metrics, None
        except Exception as e:  # pylint: disable=broad-except
            # Whatever it is, other cases may still have figures
            names = [item.case.bare_metric] if player == BARE else item.case.metrics
            return dict.fromkeys(names), f'{type(e).__name__}: {e}'.removeprefix('Broken: ')

    def warm(self, items, gmem):
        """The memory that one of them needs at once, and some for what QEMU has beside RAM."""
        need = max(int(item.size * GIB) * item.case.copies * 9 // 8 + item.case.beside
                   for item in items)
        need = min(need, host.meminfo()['MemAvailable'] * 9 // 10)
        host.warm(self.env.pick(need, 1 << 22))
        if gmem:
            host.warm(self.env.pick(need, 1 << 22), gmem=True)

    def round(self, items, number, counts):
        """Each item once, by each player in turn."""
        for item in items:
            start = time.monotonic()
            for player in schedule.turns(item.players, number):
                self.progress(number, self.rounds, f'{item}, {player}',
                              schedule.seconds_left(self.costs, self.rounds, self.done))
                metrics, error = self.measure(item, player)
                if counts:
                    self.emit({'case': item.case.name, 'size': item.size, 'backend': player,
                               'metrics': metrics, 'error': error})
                elif error:
                    self.emit({'note': f'{item}, {player}: {error}'})
            self.costs[item] = time.monotonic() - start
            if counts:
                self.done[item] = self.done.get(item, 0) + 1
        if counts:
            self.emit({'load': machine.load()})

    def warm_up(self, items, limit):
        """A round that does not count, the small guests first, until the time is over; how many
        items it has come to.
        """
        start = time.monotonic()
        for number, item in enumerate(items):
            if number and time.monotonic() - start > limit:
                return number
            self.round([item], 0, False)
        return len(items)

    def run(self, items, rounds, budget, keep_all=True):
        """A round to warm up, by which the others are planned; where nothing but breakage is
        looked for, one round is all.

        rounds: how many, or None; keep_all: whether no item may be left out to save time
        """
        def leave_out(item):
            self.emit({'note': f'{item}: left out, as all would take more than '
                       f'{budget / 60:.0f} minutes; BENCH={item.case.name} measures it'})

        keep_all = keep_all or bool(rounds)
        if self.env.memory_stays_warm:
            self.warm(items, True)
        if self.env.breakage:
            self.emit({'rounds': 1})
            self.round(items, 0, True)
        else:
            least, most = (rounds, rounds) if rounds else (schedule.LEAST, schedule.MOST)
            start = time.monotonic()
            items = sorted(items, key=lambda item: item.size * item.case.copies)
            tried = self.warm_up(items, float('inf') if keep_all
                                 else schedule.warm_up_limit(budget))
            self.rounds, left_out = schedule.choose(
                self.costs, budget - (time.monotonic() - start), least, most, keep_all)
            for item in [*items[tried:], *left_out]:
                leave_out(item)
                self.costs.pop(item, None)
            items = [i for i in items[:tried] if i not in left_out]
            self.emit({'rounds': self.rounds})
            for number in range(self.rounds):
                self.round(items, number + 1, True)
        self.emit({'complete': True})
