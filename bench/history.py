# SPDX-License-Identifier: GPL-2.0-or-later
"""The runs that were: a directory of result files, named by their time."""

import time

from .figures import changes
from .results import BadFile, Results


def new_name(directory, kind):
    return directory / f'{time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())}-{kind}.json'


def comparison(old_path, new, cases):
    """What changed beyond the spread since the run in a file."""
    old = Results.load(old_path)
    if old.breakage != new.breakage:
        raise BadFile(f'{old_path} comes from a run of another kind (--breakage): '
                      'the two cannot be compared')
    return changes(old.summaries(cases), new.summaries(cases))
