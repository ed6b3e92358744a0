# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: see scripts/bench."""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from . import (bare, cases, debian, environment, history, machine, plots, page, relay, runner,
               table, tap)
from .backends import BACKENDS, REFERENCE
from .goals import OURS
from .results import BadFile, Results

TOP = Path(__file__).resolve().parents[1]
sys.path += [str(TOP / d) for d in ('tests/nested', 'scripts')]
import entry  # noqa: E402 pylint: disable=wrong-import-position
import kvm  # noqa: E402 pylint: disable=wrong-import-position
INTERRUPTED = 130
# The machine's settings must be what they were, whoever ends it
ENDS = signal.SIGINT, signal.SIGTERM
EPILOG = '''As variables of make: BENCH="CASE...", ROUNDS=N, SIZE=SIZE, ALL=1, RAM=KIND,..., BREAKAGE=1,
COMPARE=FILE, MINUTES=N. Every run is kept in BUILD/bench/runs, with plots. Exit status: 0 all is
well, 1 something has failed, 2 it cannot be measured here or was asked wrongly, 130 ended by
Ctrl-C or SIGTERM (what there is by then is shown and kept).'''


def size(text):
    """GiB of a text such as 512M or 4G."""
    try:
        number = float(text[:-1]) / {'M': 1024, 'G': 1}[text[-1:].upper()]
    except (KeyError, ValueError):
        number = 0
    # The guest program has page tables for 96 GiB
    if not 64 / 1024 <= number <= 64 or number * 1024 % 2:
        raise argparse.ArgumentTypeError(f'{text}: it can be 64M to 64G, in steps of 2M')
    return number


def rounds(text):
    if not text.isdigit() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f'{text}: it can be 1 to 1000')
    return int(text)


def kinds(text):
    if text == 'all':
        return list(BACKENDS)
    unknown = set(text.split(',')) - set(BACKENDS)
    if unknown:
        raise argparse.ArgumentTypeError(f'{", ".join(sorted(unknown))}: there are '
                                         + ', '.join(['all', *BACKENDS]))
    return text.split(',')


def minutes(text):
    if not text.isdigit() or not 1 <= int(text) <= 10000:
        raise argparse.ArgumentTypeError(f'{text}: it can be 1 to 10000')
    return int(text)


def arguments():
    known = cases.load().values()
    width = max(len(c.name) for c in known)
    listing = ['cases:', *(f'  {c.name:{width}}  {c.what}'
                           + (' (counts, too)' if c.counted else '') for c in known),
               '', 'kinds of RAM:', *(f'  {b.name:{width}}  {b.what}' for b in BACKENDS.values()),
               f'  {"bare":{width}}  no virtual machine: the operation of the kernel below, the'
               ' limit']
    parser = argparse.ArgumentParser(
        prog='scripts/bench', description='Measure what guest_memfd RAM costs and gives, beside '
        'other RAM, on this machine.', epilog='\n'.join([*listing, '', EPILOG]),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('cases', nargs='*', metavar='CASE',
                        help='cases, groups (what stands before the /), or "counted": those with '
                        'figures that do not depend on speed; default: all that fit into the time')
    parser.add_argument('--rounds', type=rounds, metavar='N',
                        help='so many rounds, however long they take (default: as many as fit, '
                        '7 at least)')
    parser.add_argument('--size', type=size, metavar='SIZE',
                        help='guests of this size, such as 512M or 4G, in all cases')
    parser.add_argument('--all', action='store_true',
                        help='guests of all sizes, which is a matter of hours with --ram all '
                        '(default: mostly of 512 MiB, unless the case is named)')
    parser.add_argument('--ram', type=kinds, metavar='KIND,...',
                        help='these kinds of RAM, or "all" (default: guest-memfd,memfd)')
    parser.add_argument('--minutes', type=minutes, default=11, metavar='N',
                        help='about how long it may take, if no case is named (default: 11)')
    parser.add_argument('--breakage', action='store_true',
                        help='each case once and small, to see whether it works; in an emulated '
                        'KVM host if there is no other. Times are not shown, for they mean '
                        'nothing; counts are')
    parser.add_argument('--compare', type=Path, metavar='FILE',
                        help='show what changed beyond the spread since this run')
    parser.add_argument('--from', dest='source', type=Path, metavar='FILE',
                        help='measure nothing, show this run')
    parser.add_argument('--page', type=Path, metavar='DIR',
                        help='also write the page of the manual, with its plots, into DIR')
    parser.add_argument('--build', type=Path, default=TOP / 'build', help=argparse.SUPPRESS)
    return parser.parse_args()


def progress(number, total, what, seconds):
    which = f'round {number} of {total}' if number else 'warming up'
    left = f', {seconds / 60:.0f} min left' if number else ''
    text = f'{which}: {what}{left}'
    if kvm.INSIDE in os.environ:
        # Goes to the log of the emulated host
        print(text, file=sys.stderr, flush=True)
    elif sys.stderr.isatty():
        print(f'\r\033[K{text}', end='', file=sys.stderr, flush=True)


def interrupt(number, frame):
    """Once: from now on what is left has to be tidied up."""
    for end in ENDS:
        signal.signal(end, signal.SIG_IGN)
    raise KeyboardInterrupt


def measure(args, build, results, emulated):
    """On this machine's KVM, telling what happens: to `results`, and as a test or to whoever
    emulates it.
    """
    sys.path.append(str(build / 'src/qemu/python'))
    report = tap.Report() if args.breakage else None
    errors = []

    def emit(message):
        runner.apply(results, message)
        errors.append(message.get('error'))
        if emulated:
            relay.tell(message)
        if report:
            report.hear(message)

    results.breakage = args.breakage
    with environment.Environment(build, args.breakage, emulated) as env:
        emit({'machine': machine.describe(env)})
        everything = bool(args.cases) or args.all
        chosen = [c for c in cases.chosen(args.cases)
                  if everything or args.breakage or not c.long]
        items, notes = runner.plan(chosen, args.size and [args.size], env, args.ram,
                                   all_sizes=everything)
        for note in notes:
            emit({'note': note})
        if not items:
            raise cases.Broken('none of these cases can be measured on this machine: '
                               + '; '.join(notes))
        runner.Runner(env, emit, progress).run(
            items, args.rounds, args.minutes * 60, keep_all=everything)
    if report:
        report.goals(results.verdicts(cases.CASES))
        return report.end()
    return not any(errors)


def in_emulated_host(args, build, results):
    """The same command in there; what it tells comes back. Whether all is well."""
    results.breakage = True
    command = [sys.executable, '-m', 'bench', *sys.argv[1:], '--ram', ','.join(args.ram)]
    with contextlib.redirect_stdout(relay.Listener(lambda m: runner.apply(results, m))):
        try:
            kvm.ensure(build, 'bench', command)
        except SystemExit as e:
            return e.code == 0
    raise AssertionError('kvm.ensure() has returned')


def fetch_debian(args, build, results):
    """Have Debian's QEMU if it is to be measured; an emulated host has no network."""
    if 'debian' not in args.ram or \
            not any('debian' in c.backends for c in cases.chosen(args.cases)):
        return
    try:
        debian.fetch(build, debian.suite())
    except (cases.Broken, subprocess.CalledProcessError) as e:
        results.notes.append(f"debian: its QEMU cannot be had: {e}")
        args.ram.remove('debian')


def run(args, build, inside):
    """Measure; the results, whether all is well, and whether the user has ended it."""
    results = Results({})
    reason = None if inside else kvm.reason_not_here()
    if reason and not args.breakage:
        raise cases.Broken(
            f"nothing can be timed here, as this machine's KVM does not bind guest_memfds: "
            f'{reason}; --breakage (make bench BREAKAGE=1) tries each case once in an emulated '
            'host, where only counts mean anything')
    bare.build(build)
    args.ram = args.ram or [OURS, REFERENCE]
    fetch_debian(args, build, results)
    for end in ENDS:
        signal.signal(end, interrupt)
    try:
        good = in_emulated_host(args, build, results) if reason else \
            measure(args, build, results, inside)
        return results, good, False
    except KeyboardInterrupt:
        print('\nended early', file=sys.stderr)
        return results, False, True


def show(args, build, results, kept):
    """The table, and what else is wanted of a run."""
    for line in table.table(results, cases.CASES):
        print(line)
    if kept:
        results.save(kept)
        drawn = plots.draw(results, cases.CASES, kept.with_suffix(''))
        print(f'\nkept in {kept}' + (f', with {len(drawn)} plots in {kept.with_suffix("")}'
                                     if drawn else ''))
    if args.page:
        print(f'the page is {page.write(results, cases.CASES, args.page)}')
    if args.compare:
        print(f'\nchanged since {args.compare}')
        for line in table.change_lines(history.comparison(args.compare, results, cases.CASES),
                                       cases.CASES):
            print(line)


def main():
    args = arguments()
    build = args.build.resolve()
    cases.chosen(args.cases)
    if args.compare:
        Results.load(args.compare)
    if args.source:
        show(args, build, Results.load(args.source), None)
        return 0
    # Before kvm.ensure() says so to the emulated host
    inside = kvm.INSIDE in os.environ
    results, good, ended = run(args, build, inside)
    if not inside:
        if results.values:
            if sys.stderr.isatty():
                print('\r\033[K', end='', file=sys.stderr)
            kept = history.new_name(build / 'bench/runs',
                                    'breakage' if results.breakage else 'measured')
            with contextlib.redirect_stdout(tap.Comment() if args.breakage else sys.stdout):
                show(args, build, results, kept)
        else:
            print('error: there is no figure', file=sys.stderr)
    return INTERRUPTED if ended else 0 if good else 1


if __name__ == '__main__':
    try:
        sys.exit(entry.run(main))
    except (cases.Broken, BadFile) as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
