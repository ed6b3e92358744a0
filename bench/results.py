# SPDX-License-Identifier: GPL-2.0-or-later
"""The figures of a run: what the runner adds to, files hold, and everything else reads."""

import json
from dataclasses import asdict, dataclass, field, replace

from .backends import BARE, REFERENCE
from .figures import summarize, summarize_ratio
from .goals import OURS, RESOLUTION, judge

VERSION = 1


class BadFile(Exception):
    """Why a file holds no results, in a sentence."""


@dataclass
class Results:
    """values: {case: {size: {backend: {metric: [figure by round]}}}}, size in GiB as text.

    A round that failed has None. notes: sentences on what was left out, and why.
    """
    machine: dict
    breakage: bool = False
    complete: bool = False
    rounds: int = 0
    loads: list = field(default_factory=list)
    values: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    def add(self, case, size, backend, metrics):
        into = self.values.setdefault(case, {}).setdefault(f'{size:g}', {}).setdefault(backend, {})
        for name, value in metrics.items():
            into.setdefault(name, []).append(value)

    def series(self, case, size, backend, metric):
        return self.values.get(case, {}).get(f'{size:g}', {}).get(backend, {}).get(metric, [])

    def summary(self, case, size, backend, metric):
        """None if there is no figure."""
        return summarize([v for v in self.series(case, size, backend, metric) if v is not None])

    def ratio(self, case, size, backend, metric):
        """To the reference, round by round."""
        return summarize_ratio(self.series(case, size, backend, metric),
                               self.series(case, size, REFERENCE, metric))

    def items(self, cases):
        """(case, size, metric's name, metric, [backends]) of all that there is to show.

        Of a run for breakage these are counts alone: its times are no figures.
        """
        for case in cases.values():
            for size in sorted(self.values.get(case.name, {}), key=float):
                found = self.values[case.name][size]
                for name, metric in case.metrics.items():
                    if self.breakage and not metric.counted:
                        continue
                    order = [b for b in (*case.backends, BARE)
                             if any(v is not None for v in found.get(b, {}).get(name, []))]
                    if order:
                        yield case, float(size), name, metric, order

    def verdicts(self, cases):
        """(case, size, goal's verdict) of all goals for which there are figures."""
        for case in cases.values():
            for size in sorted(map(float, self.values.get(case.name, {}))):
                def median(backend, metric, other=None, case=case, size=size):
                    found = self.summary(case.name, other or size, backend, metric)
                    return found.median if found else None

                for goal in case.goals:
                    if not goal.holds_for(size, self.machine.get('paging')) or \
                            self.breakage and not case.metrics[goal.metric].counted:
                        continue
                    verdict = judge(goal, median)
                    if verdict:
                        ratio = self.ratio(case.name, size, OURS, goal.metric)
                        yield case, size, replace(
                            verdict, spread_has_it=bool(
                                goal.of == REFERENCE and ratio and
                                (ratio.low <= goal.factor or
                                 ratio.median < goal.factor + RESOLUTION)))

    def losses(self, cases):
        """(case, size, metric's name, ratio) where our RAM has more than the reference, worst
        first, beyond the spread."""
        found = []
        for case, size, name, _, order in self.items(cases):
            ratio = self.ratio(case.name, size, OURS, name) if OURS in order else None
            if ratio and ratio.low > 1 and ratio.median >= 1 + RESOLUTION:
                found.append((case, size, name, ratio))
        return sorted(found, key=lambda f: -f[3].median)

    def summaries(self, cases):
        """{(case, size, backend, metric): Summary} for comparison with another run."""
        return {(case.name, size, backend, name): self.summary(case.name, size, backend, name)
                for case, size, name, _, order in self.items(cases) for backend in order}

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({'version': VERSION, **asdict(self)}, indent=1) + '\n',
                        encoding='utf-8')

    @classmethod
    def load(cls, path):
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
        except OSError as e:
            raise BadFile(f'cannot read {path}: {e.strerror}') from e
        except ValueError as e:
            raise BadFile(f'{path} holds no results of "make bench"') from e
        if not isinstance(content, dict) or content.pop('version', None) != VERSION:
            raise BadFile(f'{path} holds no results of this version of "make bench"')
        try:
            return cls(**content)
        except TypeError as e:
            raise BadFile(f'{path} holds no results of "make bench"') from e
