# SPDX-License-Identifier: GPL-2.0-or-later
"""What a figure should be, and whether it is."""

from dataclasses import dataclass

OURS = 'guest-memfd'
SHADOW, TWO_DIMENSIONAL = 'shadow', 'two-dimensional'
# Times that differ by less are not told apart
RESOLUTION = 0.01


@dataclass(frozen=True)
class Goal:
    """metric <= factor * reference + plus, for guest_memfd RAM.

    of       another kind of RAM, 'bare', 'size:SMALLER' in GiB, 'metric:OTHER', or None: then
             `plus` alone is the limit
    sizes    for these sizes in GiB alone
    paging   where KVM pages like that alone
    """
    metric: str
    factor: float = 0.0
    of: str = None
    plus: float = 0.0
    sizes: tuple = ()
    paging: str = None

    def holds_for(self, gib, paging):
        return (not self.sizes or gib in self.sizes) and self.paging in (None, paging)

    def __str__(self):
        return self.text('{:g}'.format)

    def text(self, figure):
        """As a sentence. @figure: how an amount of the metric's unit is written"""
        parts = []
        if self.of:
            kind, _, what = self.of.partition(':')
            reference = {'size': f'that of {what} GiB', 'metric': what}.get(kind, self.of)
            parts.append(f'{self.factor:g} x {reference}')
        if self.plus or not parts:
            parts.append(figure(self.plus))
        return f'{self.metric} <= {" + ".join(parts)}'


@dataclass(frozen=True)
class Verdict:
    """spread_has_it: it is missed by less than the rounds differ from each other, or can tell"""
    goal: Goal
    value: float
    limit: float
    spread_has_it: bool = False

    @property
    def met(self):
        return self.value <= self.limit

    @property
    def word(self):
        return 'met' if self.met else 'unclear' if self.spread_has_it else 'MISSED'


def judge(goal, median):
    """The verdict, or None if a figure is missing.

    median: function (kind of RAM, metric, size in GiB or None for this one) -> figure or None
    """
    value = median(OURS, goal.metric, None)
    reference = 0.0
    if goal.of:
        kind, _, what = goal.of.partition(':')
        if kind == 'size':
            reference = median(OURS, goal.metric, float(what))
        elif kind == 'metric':
            reference = median(OURS, what, None)
        else:
            reference = median(goal.of, goal.metric, None)
    if value is None or reference is None:
        return None
    return Verdict(goal, value, goal.factor * reference + goal.plus)
