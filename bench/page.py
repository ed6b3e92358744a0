# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of the manual, from a run: first what costs more, then everything, then the goals.

A run that only tried the cases gives a page of counts, and says that it has no times.
"""

import re
import textwrap

from . import plots
from .backends import BACKENDS, BARE, REFERENCE
from .cases import GROUPS
from .goals import OURS
from .table import figure, goal_text, machine_text, ratio_text

NAME = 'guest-memfd-performance'
TITLE = 'What guest_memfd RAM costs and gives'
HEADINGS = {
    'prealloc': 'Preallocation', 'touch': 'First touch', 'memory': "The host's memory",
    'start': 'Start', 'disk': 'Disks', 'balloon': 'Balloon', 'migration': 'Migration', 'slots': 'Changes of memslots',
    'teardown': 'Giving memory back', 'random': 'Random access'}


def wrapped(text, indent=''):
    return textwrap.fill(text, 84, initial_indent=indent,
                         subsequent_indent=indent.replace('*', ' '),
                         break_long_words=False, break_on_hyphens=False)


def heading(text, line='-'):
    return f'{text}\n{line * len(text)}'


def grid(rows):
    """A list-table, with the first row as its header."""
    lines = ['.. list-table::', '   :header-rows: 1', '']
    for row in rows:
        lines += [f'   {"* -" if i == 0 else "  -"} {cell}'.rstrip() for i, cell in enumerate(row)]
    return '\n'.join(lines)


def introduction(results):
    if results.breakage:
        yield wrapped(
            'This page has counts alone. The machine that they come from has no KVM of its own: '
            'a KVM host was emulated on it. How many page faults a guest takes, or how much '
            'memory the host needs, does not depend on how fast a processor is. How long '
            'something takes does, so there is no time on this page: times await a machine with '
            'KVM (``make bench``).')
    else:
        yield wrapped(
            f'These are medians of {results.rounds} rounds, in which all kinds of RAM took turns. '
            'In brackets is where the middle half of the rounds lies. Another machine has other '
            'figures; ``make bench`` finds out yours.'
            + ('' if results.complete else ' The run was ended before all rounds were over.'))
    where = 'emulated host' if results.machine['emulated'] else 'machine'
    yield wrapped(f'The {where}: {machine_text(results)}.')
    yield wrapped(f'The page was made by ``make bench`` on {results.machine["date"]}, from '
                  f'commit {results.machine["commit"]}.')


def losses(results, cases):
    """Each case in which our RAM costs more, and why."""
    yield heading('What costs more')
    found = results.losses(cases)
    if not found:
        yield wrapped(f'Nothing that was measured here costs more than with {REFERENCE}.')
        return
    yield '\n'.join(
        wrapped(f'{case.name}, {name}, guest of {size:g} GiB: {ratio_text(ratio)} times as much '
                f'as with {REFERENCE}. '
                + case.reasons.get(name, 'Why is not known.'), '* ')
        for case, size, name, ratio in found)


def group_table(results, cases, group):
    """A row for each figure, a column for each kind of RAM."""
    found = [f for f in results.items(cases) if f[0].group == group]
    columns = [b for b in (*BACKENDS, BARE) if any(b in f[4] for f in found)]
    yield ['case', 'guest', 'what', *columns]
    for case, size, name, metric, order in found:
        row = [case.name, f'{size:g} GiB', metric.what]
        for backend in columns:
            if backend not in order:
                row.append('')
                continue
            text = figure(results.summary(case.name, size, backend, name).median, metric.unit)
            if backend == OURS:
                ratio = results.ratio(case.name, size, backend, name)
                text += f' = {ratio_text(ratio)} x {REFERENCE}' if ratio else ''
            row.append(text)
        yield row


def goals(results, cases):
    rows = [['', 'case', 'guest', 'goal', 'is', 'limit']]
    for case, size, v in results.verdicts(cases):
        unit = case.metrics[v.goal.metric].unit
        rows.append([v.word if v.met else f'**{v.word.lower()}**', case.name, f'{size:g} GiB',
                     goal_text(case, v.goal), figure(v.value, unit), figure(v.limit, unit)])
    if len(rows) > 1:
        yield heading('Goals')
        yield grid(rows)


def kinds(results):
    used = {b for sizes in results.values.values() for found in sizes.values() for b in found}
    yield heading('Kinds of RAM')
    yield '\n'.join([*(wrapped(f'``{b.name}``: {b.what}', '* ') for b in BACKENDS.values()
                       if b.name in used),
                     *(['* ``bare``: no virtual machine, only the operation of the kernel below']
                       if BARE in used and not results.breakage else [])])


def page(results, cases, pictures=()):
    """The text; pictures are the groups that have one, as NAME/GROUP.svg."""
    parts = ['.. SPDX-License-Identifier: GPL-2.0-or-later\n.. Made by "make bench", not by hand',
             heading(TITLE, '='), *introduction(results), *losses(results, cases)]
    for group in GROUPS:
        rows = list(group_table(results, cases, group))
        if len(rows) > 1:
            names = dict.fromkeys(row[0] for row in rows[1:])
            parts += [heading(HEADINGS[group]),
                      '\n'.join(wrapped(f'``{n}``: {cases[n].what}', '* ') for n in names),
                      grid(rows)]
            if group in pictures:
                parts.append(f'.. image:: {NAME}/{group}.svg\n'
                             f'   :alt: {HEADINGS[group]}: the table above as bars')
    parts += [*goals(results, cases), *kinds(results)]
    if results.notes:
        parts += [heading('What was left out'),
                  '\n'.join(wrapped(re.sub(r'([*`|\\])', r'\\\1', n), '* ')
                            for n in results.notes)]
    return '\n\n'.join(parts) + '\n'


def write(results, cases, directory):
    """Page and plots into a directory of the manual's source; the page's file."""
    pictures = plots.draw(results, cases, directory / NAME, ('svg',))
    path = directory / f'{NAME}.rst'
    path.write_text(page(results, cases, {p.stem for p in pictures}), encoding='utf-8')
    return path
