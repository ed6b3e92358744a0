# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures of several rounds: medians, how far they spread, ratios, and what has changed."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """The median, and between which values the middle half of all lies."""
    count: int
    median: float
    low: float
    high: float

    @property
    def spread(self):
        """The width of that half, as a part of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def summarize(values):
    """None if there is no value."""
    if not values:
        return None
    if len(values) == 1:
        return Summary(1, values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method='inclusive')
    return Summary(len(values), median, low, high)


def ratios(ours, theirs):
    """Round by round: what both have met in the same minutes tells them apart least."""
    return [a / b for a, b in zip(ours, theirs) if a is not None and b]


def summarize_ratio(ours, theirs):
    """Of values by round, where a round that failed has None."""
    return summarize(ratios(ours, theirs))


def apart(old, new):
    """Whether two summaries differ by more than they spread: their middle halves do not meet."""
    return new.low > old.high or new.high < old.low


@dataclass(frozen=True)
class Change:
    """A figure that two runs do not agree on."""
    name: tuple
    old: Summary
    new: Summary


def changes(old, new):
    """What changed beyond the spread, most first, between {name: Summary} of two runs."""
    def size(change):
        small, large = sorted((abs(change.old.median), abs(change.new.median)))
        return large / small if small else float('inf')

    found = [Change(name, old[name], new[name]) for name in old.keys() & new.keys()
             if apart(old[name], new[name])]
    return sorted(found, key=lambda c: (-size(c), c.name))
