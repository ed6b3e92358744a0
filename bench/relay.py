# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages of a run in an emulated host, through the only line out of it: what it prints."""

import json
import sys

WORD = '# bench '


def tell(message):
    print(WORD + json.dumps(message), flush=True)


class Listener:
    """In the place of sys.stdout: hands on messages to a function, and all else to the real one."""

    def __init__(self, hear):
        self.hear = hear
        self.out = sys.stdout
        self.unread = ''

    def write(self, text):
        self.unread += text
        *lines, self.unread = self.unread.split('\n')
        for line in lines:
            if line.startswith(WORD):
                self.hear(json.loads(line[len(WORD):]))
            else:
                self.out.write(line + '\n')
        return len(text)

    def flush(self):
        self.out.flush()
