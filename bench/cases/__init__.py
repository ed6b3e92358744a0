# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases: a file a group, whose functions measure one kind of RAM once."""

import importlib
import time
from dataclasses import dataclass, field

GROUPS = ('prealloc', 'touch', 'memory', 'start', 'disk', 'balloon', 'migration', 'slots',
          'teardown', 'random')
GIB = 1 << 30
CASES = {}


class Broken(Exception):
    """Why there is no figure, in a sentence."""


def wait_until(condition, seconds=1800, every=0.01):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Broken(f'not within {seconds} s: what was waited for')
        time.sleep(every)


@dataclass(frozen=True)
class Metric:
    """unit: s, B (bytes) or 1 (a number)

    counted   it does not depend on how fast the machine is: an emulated host may tell it
    optional  some machines do not have it
    """
    unit: str
    what: str
    counted: bool = False
    optional: bool = False


# Why a pass over warm memory can take longer
PLACEMENT = ("Which of the host's pages a file gets makes that difference, and not what maps "
             'them: with kvm-bind=off it is the same.')

# Why little memory can be more than little memory (the kernel's MEMCG_CHARGE_BATCH)
BATCHES = ('A memory cgroup counts in batches of 64 pages for each processor: a smaller difference '
           'says nothing.')


@dataclass(frozen=True, eq=False)
class Case:
    """measure(run) returns {metric: figure}; bare(run) the arguments of bench/bare.c.

    sizes     of the guest, in GiB, if the case is named, or all are asked for
    quick     ... in the default set, which is to be over in minutes
    small     in MiB, where only faults are looked for
    copies    how often its size has to fit into the host's memory (0: nobody touches it)
    beside    bytes that the host takes beside that, and that must be warm, too
    archs     machines on which it can be measured; none: all
    long      it takes minutes: measured only if it is named, or with --all
    reasons   {metric: why our RAM has more of it, where it has}
    """
    name: str
    what: str
    measure: callable
    metrics: dict
    backends: tuple = ('guest-memfd', 'memfd')
    sizes: tuple = (1,)
    quick: float = 0.5
    small: int = 128
    copies: int = 1
    beside: int = 0
    bare: callable = None
    bare_metric: str = None
    goals: tuple = ()
    reasons: dict = field(default_factory=dict)
    archs: tuple = ()
    long: bool = False

    @property
    def group(self):
        return self.name.partition('/')[0]

    @property
    def counted(self):
        return any(m.counted for m in self.metrics.values())


def case(name, what, metrics, **kwargs):
    """Make a case of a function."""
    def register(function):
        CASES[name] = Case(name, what, function, metrics, **kwargs)
        return function
    return register


def load():
    """All cases, in the order of GROUPS."""
    for group in GROUPS:
        importlib.import_module(f'{__name__}.{group}')
    return CASES


def chosen(words):
    """The cases that the words mean: names, groups, or "counted"; all without a word."""
    cases = load()
    found = {}
    for word in words or GROUPS:
        match = {n: c for n, c in cases.items()
                 if word in (n, c.group) or (word == 'counted' and c.counted)}
        if not match:
            raise Broken(f'there is no case or group "{word}"; there are: '
                         + ', '.join([*GROUPS, 'counted', *cases]))
        found |= match
    return [c for n, c in cases.items() if n in found]
