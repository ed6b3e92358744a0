# SPDX-License-Identifier: GPL-2.0-or-later
"""Results on the terminal."""

from .backends import REFERENCE

UNITS = {'s': ((1, 's'), (1e-3, 'ms'), (1e-6, 'us'), (0, 'ns')),
         'B': ((1 << 30, 'GiB'), (1 << 20, 'MiB'), (1 << 10, 'KiB'), (0, 'B'))}
DIVISORS = {'ns': 1e-9, 'B': 1}


def figure(value, unit):
    """Three digits that say something, and the unit."""
    if unit not in UNITS:
        return f'{value:.4g}'
    least, name = next(u for u in UNITS[unit] if value >= u[0])
    number = value / (least or DIVISORS[name])
    # 1000 to 1023 of a unit of memory have four digits
    return f'{number:.{4 if number >= 999.5 else 3}g} {name}'


def spread(summary, unit):
    """Where the middle half lies."""
    if summary.count == 1:
        return '-'
    return f'{figure(summary.low, unit)} .. {figure(summary.high, unit)}'


def ratio_text(ratio):
    if not ratio:
        return ''
    if ratio.count == 1:
        return f'{ratio.median:.2f}'
    return f'{ratio.median:.2f} ({ratio.low:.2f} .. {ratio.high:.2f})'


def rows(results, cases):
    """[case, size, metric, kind of RAM, median, spread, ratio] of each figure."""
    for case, size, name, metric, order in results.items(cases):
        for backend in order:
            summary = results.summary(case.name, size, backend, name)
            ratio = None if backend == REFERENCE else \
                results.ratio(case.name, size, backend, name)
            yield [case.name, f'{size:g} GiB', name, backend, figure(summary.median, metric.unit),
                   spread(summary, metric.unit), ratio_text(ratio)]


HEAD = ['case', 'guest', 'what', 'RAM', 'median', 'middle half', f'to {REFERENCE}']


def aligned(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ['  '.join(word.ljust(width) for word, width in zip(line, widths)).rstrip()
            for line in lines]


def machine_text(results):
    m = results.machine
    loads = results.loads
    return (f'{m["processor"]}, {m["cpus"]} CPUs, {figure(m["memory"], "B")}, Linux {m["kernel"]}, '
            f'{m["paging"]} paging' + (', itself virtual' if m['virtual'] else '')
            + (', emulated' if m['emulated'] else '')
            + (', free memory goes cold' if m.get('free-memory') == 'may go cold' else '')
            + (f'; load {min(loads):.1f} to {max(loads):.1f}' if loads else ''))


def table(results, cases):
    """Lines: the machine, the figures, the goals, and what is missing."""
    lines = [machine_text(results)]
    kind = 'counts of one small round; its times are no figures' if results.breakage else \
        f'medians of {results.rounds} rounds'
    lines += [kind + ('' if results.complete else ', which was ended early'), '']
    found = list(rows(results, cases))
    before = None
    shown = [HEAD]
    for row in found:
        # What is the same as above is left away
        same = row[:3] == before
        before = row[:3]
        shown.append(['', '', '', *row[3:]] if same else row)
    lines += aligned(shown) if found else ['no figure']
    goals = goal_lines(results, cases)
    if goals:
        lines += ['', 'goals', *goals]
    if results.notes:
        lines += ['', 'left out or failed', *(f'  {n}' for n in results.notes)]
    return lines


def goal_text(case, goal):
    """The sentence, with the metric's own unit."""
    return goal.text(lambda amount: figure(amount, case.metrics[goal.metric].unit))


def goal_lines(results, cases):
    found = [[f'  {v.word}', case.name, f'{size:g} GiB', goal_text(case, v.goal),
              f'{figure(v.value, case.metrics[v.goal.metric].unit)} of '
              f'{figure(v.limit, case.metrics[v.goal.metric].unit)}']
             for case, size, v in results.verdicts(cases)]
    return aligned(found) if found else []


def change_lines(changes, cases):
    """What another run had otherwise."""
    lines = []
    for change in changes:
        name, size, backend, metric = change.name
        unit = cases[name].metrics[metric].unit
        lines.append([f'  {name}', f'{size:g} GiB', metric, backend,
                      f'{figure(change.old.median, unit)} -> {figure(change.new.median, unit)}'])
    return aligned(lines) if lines else ['  nothing beyond the spread']

