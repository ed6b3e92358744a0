# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose turn it is, and how many rounds fit into the time that there is."""

LEAST = 7
MOST = 31


def turns(players, number):
    """Who is measured in round `number`, in order: A B C, then C B A, and so on.

    So each follows each equally often, and what one leaves behind (warm memory, a hot
    processor) is nobody's advantage.
    """
    return list(players) if number % 2 == 0 else list(players)[::-1]


def warm_up_limit(budget):
    """Seconds for the warm-up, which is one more round; what it does not come to is left out."""
    return budget / 4


def choose(costs, budget, least=LEAST, most=MOST, keep_all=False):
    """How many rounds, and what to leave out so that the least of them fit.

    costs: {item: seconds for one round of it}, as the warm-up found
    budget: seconds
    keep_all: whether all of them were asked for, and may take longer
    Returns (rounds, [item left out, dearest first]).
    """
    kept = dict(costs)
    left_out = []
    while not keep_all and len(kept) > 1 and sum(kept.values()) * least > budget:
        dearest = max(kept, key=kept.get)
        left_out.append(dearest)
        del kept[dearest]
    total = sum(kept.values())
    fit = int(budget / total) if total else most
    return max(least, min(fit, most)), left_out


def seconds_left(costs, rounds, done):
    """What the rest takes: `rounds` of all items, of which `done` {item: rounds} are over."""
    return sum(cost * (rounds - done.get(item, 0)) for item, cost in costs.items())
