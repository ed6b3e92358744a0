#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test what the benchmark decides: statistics, turns, rounds, goals."""

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP), str(TOP / 'scripts/tests')]
import tap  # noqa: E402 pylint: disable=wrong-import-position
from bench import figures, goals, host, schedule  # noqa: E402 pylint: disable=wrong-import-position
from bench.figures import Summary  # noqa: E402 pylint: disable=wrong-import-position


class FiguresTest(unittest.TestCase):
    def test_median_and_middle_half(self):
        self.assertEqual(figures.summarize([5, 1, 4, 2, 3]), Summary(5, 3, 2, 4))

    def test_one_outlier_moves_neither(self):
        self.assertEqual(figures.summarize([5000, 1, 4, 2, 3]), Summary(5, 3, 2, 4))

    def test_one_value_has_no_spread(self):
        self.assertEqual(figures.summarize([7]), Summary(1, 7, 7, 7))
        self.assertEqual(figures.summarize([7]).spread, 0)

    def test_no_value(self):
        self.assertIsNone(figures.summarize([]))

    def test_spread_of_zero(self):
        self.assertEqual(figures.summarize([0, 0, 0]).spread, 0)

    def test_ratios_are_taken_round_by_round(self):
        """A machine that becomes twice as slow in the middle changes no ratio."""
        self.assertEqual(figures.ratios([1, 1, 2, 2], [2, 2, 4, 4]), [.5] * 4)
        self.assertEqual(figures.summarize_ratio([1, 1, 2, 2], [2, 2, 4, 4]).spread, 0)

    def test_round_that_failed_has_no_ratio(self):
        self.assertEqual(figures.ratios([1, None, 3], [2, 2, None]), [.5])
        self.assertEqual(figures.ratios([1], [0]), [])
        self.assertIsNone(figures.summarize_ratio([None], [1]))

    def test_apart_if_the_halves_do_not_meet(self):
        old = Summary(7, 10, 9, 11)
        self.assertFalse(figures.apart(old, Summary(7, 11.5, 11, 12)))
        self.assertTrue(figures.apart(old, Summary(7, 12, 11.1, 13)))
        self.assertTrue(figures.apart(old, Summary(7, 8, 7, 8.9)))
        self.assertFalse(figures.apart(old, old))

    def test_exact_counts_change_by_one(self):
        self.assertTrue(figures.apart(Summary(1, 8, 8, 8), Summary(1, 9, 9, 9)))

    def test_changes_are_those_in_both_runs_most_first(self):
        same, old = Summary(3, 5, 4, 6), Summary(3, 10, 9, 11)
        little, much = Summary(3, 13, 12, 14), Summary(3, 2, 1, 3)
        found = figures.changes({'a': same, 'b': old, 'c': old, 'gone': old},
                                {'a': same, 'b': little, 'c': much, 'new': old})
        self.assertEqual([(c.name, c.new) for c in found], [('c', much), ('b', little)])


class ScheduleTest(unittest.TestCase):
    def test_turns_alternate(self):
        self.assertEqual([schedule.turns('AB', n) for n in range(4)],
                         [['A', 'B'], ['B', 'A']] * 2)

    def test_in_two_rounds_each_comes_before_each_equally_often(self):
        order = [schedule.turns('ABC', n) for n in range(2)]
        for a, b in ('AB', 'BC', 'AC'):
            self.assertEqual(sum(o.index(a) < o.index(b) for o in order), 1)

    def test_as_many_rounds_as_fit(self):
        self.assertEqual(schedule.choose({'a': 10, 'b': 20}, 300), (10, []))

    def test_no_more_rounds_than_help(self):
        self.assertEqual(schedule.choose({'a': .001}, 300), (schedule.MOST, []))
        self.assertEqual(schedule.choose({'a': 0}, 300), (schedule.MOST, []))

    def test_dearest_is_left_out_until_the_least_rounds_fit(self):
        self.assertEqual(schedule.choose({'a': 10, 'b': 100, 'c': 50, 'd': 1}, 80),
                         (7, ['b', 'c']))

    def test_the_last_one_stays_and_has_its_rounds(self):
        self.assertEqual(schedule.choose({'a': 1000}, 80), (7, []))

    def test_what_was_asked_for_is_not_left_out(self):
        self.assertEqual(schedule.choose({'a': 10, 'b': 100}, 80, keep_all=True), (7, []))

    def test_warm_up_takes_a_quarter_at_most(self):
        self.assertEqual(schedule.warm_up_limit(800), 200)

    def test_rounds_that_were_asked_for(self):
        self.assertEqual(schedule.choose({'a': 1}, 80, least=3, most=3), (3, []))

    def test_seconds_left(self):
        self.assertEqual(schedule.seconds_left({'a': 2, 'b': 3}, 7, {'a': 7, 'b': 5}), 6)
        self.assertEqual(schedule.seconds_left({'a': 2}, 7, {}), 14)


class HostTest(unittest.TestCase):
    def test_lines_of_proc_and_of_cgroups(self):
        self.assertEqual(host.table('VmPTE:\t  12 kB\nGroups:\nThreads: 3\nName: x\nanon 4096\n'),
                         {'VmPTE': 12288, 'Threads': 3, 'anon': 4096})

    def test_this_process_and_this_machine(self):
        self.assertIn('VmPTE', host.process('self'))
        self.assertIn('MemFree', host.meminfo())

    def kept(self, features, reported=None):
        """Whether free memory is, and what is told then of blocks, on a host like that."""
        with tempfile.TemporaryDirectory(prefix='bench-test.') as directory:
            balloon = Path(directory, 'virtio0')
            balloon.mkdir()
            (balloon / 'device').write_text('0x0005\n')
            (balloon / 'features').write_text(f'{features}\n')
            order = Path(directory, 'order')
            if reported:
                order.write_text(reported)
            with mock.patch.multiple(host, VIRTIO=Path(directory), REPORTED=order):
                with host.free_memory_kept() as kept:
                    meanwhile = order.read_text() if reported else None
                if reported:
                    self.assertEqual(order.read_text(), reported)
            return kept, meanwhile

    def test_free_memory_is_reported_no_more_for_the_time(self):
        self.assertEqual(self.kept('0110010100', '9\n'), (True, '11'))

    def test_free_memory_that_is_reported_goes_cold(self):
        self.assertEqual(self.kept('0110010100'), (False, None))

    def test_without_reports_nothing_is_changed(self):
        self.assertEqual(self.kept('0110000100', '9\n'), (True, '9\n'))


class GoalTest(unittest.TestCase):
    def setUp(self):
        self.figures = {('guest-memfd', 'time', None): 3.0, ('memfd', 'time', None): 4.0,
                        ('bare', 'time', None): 2.0, ('guest-memfd', 'time', 1.0): 2.5,
                        ('guest-memfd', 'before', None): 2.9}

    def judge(self, **kwargs):
        return goals.judge(goals.Goal('time', **kwargs),
                           lambda *name: self.figures.get(name))

    def test_against_another_kind_of_ram(self):
        self.assertTrue(self.judge(factor=.75, of='memfd').met)
        self.assertFalse(self.judge(factor=.74, of='memfd').met)

    def test_against_the_bare_operation(self):
        verdict = self.judge(factor=1.15, of='bare')
        self.assertFalse(verdict.met)
        self.assertAlmostEqual(verdict.limit, 2.3)

    def test_against_a_smaller_size(self):
        self.assertTrue(self.judge(factor=1.3, of='size:1').met)
        self.assertFalse(self.judge(factor=1.1, of='size:1').met)

    def test_against_another_metric(self):
        self.assertTrue(self.judge(factor=1.1, of='metric:before').met)
        self.assertFalse(self.judge(factor=1, of='metric:before').met)

    def test_in_itself_and_with_something_on_top(self):
        self.assertTrue(self.judge(plus=3).met)
        self.assertFalse(self.judge(plus=2.9).met)
        self.assertTrue(self.judge(factor=.5, of='memfd', plus=1).met)

    def test_without_a_figure_there_is_no_verdict(self):
        self.assertIsNone(self.judge(factor=1, of='ram'))
        self.figures.clear()
        self.assertIsNone(self.judge(plus=1))

    def test_holds_for_some_sizes_and_paging(self):
        goal = goals.Goal('time', sizes=(4,), paging=goals.SHADOW)
        self.assertTrue(goal.holds_for(4.0, goals.SHADOW))
        self.assertFalse(goal.holds_for(1.0, goals.SHADOW))
        self.assertFalse(goal.holds_for(4.0, goals.TWO_DIMENSIONAL))
        self.assertTrue(goals.Goal('time').holds_for(1.0, None))

    def test_reads_as_a_sentence(self):
        self.assertEqual(str(goals.Goal('time', 1.3, 'size:1')),
                         'time <= 1.3 x that of 1 GiB')
        self.assertEqual(str(goals.Goal('time', .05, 'memfd', 204800)),
                         'time <= 0.05 x memfd + 204800')
        self.assertEqual(str(goals.Goal('time', plus=.01)), 'time <= 0.01')
        self.assertEqual(goals.Goal('kept', .5, 'memfd', 2).text(lambda n: f'{n} KiB'),
                         'kept <= 0.5 x memfd + 2 KiB')


if __name__ == '__main__':
    tap.main()
