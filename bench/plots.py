# SPDX-License-Identifier: GPL-2.0-or-later
"""Results for the eyes: a plot for each group, as SVG and PNG.

Each kind of RAM has a colour of Okabe and Ito's palette, which the colour-blind can tell apart,
and a hatching, which is there without colours, too.
"""

from .backends import BARE
from .cases import GROUPS
from .table import UNITS

LOOKS = {'guest-memfd': ('#0072B2', ''), 'mapped': ('#56B4E9', '//'), 'memfd': ('#E69F00', '..'),
         'memfd-huge': ('#D55E00', 'xx'), 'ram': ('#009E73', '\\\\'), 'ram-thp': ('#CC79A7', '++'),
         'debian': ('#F0E442', 'oo'), BARE: ('#FFFFFF', '')}


def panels(results, cases, group):
    """The metrics of a group: [(case, metric's name, metric, [(size, [kinds of RAM])])]."""
    found = {}
    for case, size, name, metric, order in results.items(cases):
        if case.group == group:
            found.setdefault((case.name, name), (case, name, metric, []))[3].append((size, order))
    return list(found.values())


def scale(unit, most):
    """What figures are divided by, and what that makes the unit."""
    if unit not in UNITS:
        return 1, ''
    for least, name in UNITS[unit]:
        if most >= least:
            return least or (1e-9 if unit == 's' else 1), name
    raise AssertionError('the last one fits all')


def panel(axes, results, case, name, metric, sizes):
    """Bars of one metric, a block for each size, with the middle half of all rounds."""
    bars = [(size, backend, results.summary(case.name, size, backend, name))
            for size, order in sizes for backend in order]
    divisor, unit = scale(metric.unit, max(s.high for _, _, s in bars))
    for at, (size, backend, s) in enumerate(bars):
        colour, hatch = LOOKS[backend]
        error = None
        if s.count > 1:
            error = [[(s.median - s.low) / divisor], [(s.high - s.median) / divisor]]
        axes.barh(at, s.median / divisor, color=colour, hatch=hatch, edgecolor='black',
                  linewidth=.6, xerr=error, capsize=2)
        axes.annotate(f'{s.median / divisor:.3g}', (s.high / divisor, at), xytext=(4, 0),
                      textcoords='offset points', va='center', fontsize=7)
    axes.set_yticks(range(len(bars)),
                    [f'{backend}, {size:g} GiB' if len(sizes) > 1 else backend
                     for size, backend, _ in bars], fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=.15)
    axes.set_xlim(left=0)
    axes.tick_params(axis='x', labelsize=7)
    axes.set_xlabel(f'{metric.what}{", " if unit else ""}{unit}', fontsize=7)
    size = f', {sizes[0][0]:g} GiB' if len(sizes) == 1 else ''
    axes.set_title(f'{case.name}: {name}{size}', fontsize=8, loc='left')
    for side in 'top', 'right':
        axes.spines[side].set_visible(False)


def figure(results, cases, group):
    """A figure of matplotlib; None if the group has nothing to show."""
    # Takes a second to load, which a run of the cases alone need not wait for
    import matplotlib  # pylint: disable=import-outside-toplevel
    matplotlib.use('Agg')
    matplotlib.rcParams.update({'svg.hashsalt': 'guest-memfd', 'svg.fonttype': 'none',
                                'hatch.linewidth': .6})
    from matplotlib import pyplot  # pylint: disable=import-outside-toplevel

    found = panels(results, cases, group)
    if not found:
        return None
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    # As high as the longest panel of each row needs
    counts = [sum(len(order) for _, order in f[3]) for f in found]
    heights = [.9 + .22 * max(counts[r * columns:(r + 1) * columns]) for r in range(rows)]
    drawn, axes = pyplot.subplots(rows, columns, squeeze=False, layout='constrained',
                                  figsize=(4.6 * columns, sum(heights)),
                                  gridspec_kw={'height_ratios': heights})
    for spot, (case, name, metric, sizes) in zip(axes.flat, found):
        panel(spot, results, case, name, metric, sizes)
    for spot in axes.flat[len(found):]:
        spot.set_axis_off()
    return drawn


def draw(results, cases, directory, formats=('svg', 'png')):
    """Write the plots of all groups; their files."""
    from matplotlib import pyplot  # pylint: disable=import-outside-toplevel

    files = []
    for group in GROUPS:
        drawn = figure(results, cases, group)
        if not drawn:
            continue
        directory.mkdir(parents=True, exist_ok=True)
        for kind in formats:
            files.append(directory / f'{group}.{kind}')
            # Without a date, so that the same figures are the same file
            drawn.savefig(files[-1], dpi=120,
                          metadata={'Date': None} if kind == 'svg' else None)
            if kind == 'svg':
                # They go into patches, whose lines end without spaces
                lines = files[-1].read_text(encoding='utf-8').split('\n')
                files[-1].write_text('\n'.join(line.rstrip() for line in lines),
                                     encoding='utf-8')
        pyplot.close(drawn)
    return files
