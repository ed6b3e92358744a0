# SPDX-License-Identifier: GPL-2.0-or-later
"""A run as a test: each measurement is a case that works or does not; no time is judged."""

import sys


class Report:
    """Takes the runner's messages."""

    def __init__(self):
        self.number = 0
        self.failed = 0

    def line(self, good, name, comment=''):
        self.number += 1
        self.failed += not good
        if comment:
            print('# ' + comment.replace('\n', '\n# '))
        print(f'{"ok" if good else "not ok"} {self.number} {name}', flush=True)

    def hear(self, message):
        if 'metrics' in message:
            name = f'{message["case"]} {message["size"]:g} GiB, {message["backend"]}'
            self.line(not message['error'], name, message['error'] or '')
        if 'note' in message:
            print(f'# {message["note"]}', flush=True)

    def goals(self, verdicts):
        """Those that count something hold on an emulated host as on any other."""
        for case, size, verdict in verdicts:
            self.line(verdict.met, f'{case.name} {size:g} GiB: {verdict.goal}',
                      f'{verdict.value:g} against {verdict.limit:g}')

    def end(self):
        print(f'1..{self.number}', flush=True)
        return self.failed == 0 and self.number > 0


class Comment:
    """In the place of sys.stdout: what people read, in a test's output."""

    def __init__(self):
        self.out = sys.stdout
        self.new_line = True

    def write(self, text):
        for piece in text.splitlines(keepends=True):
            self.out.write('# ' * self.new_line + piece)
            self.new_line = piece.endswith('\n')
        return len(text)

    def flush(self):
        self.out.flush()
