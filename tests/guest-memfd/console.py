# SPDX-License-Identifier: GPL-2.0-or-later
"""Our end of the line to the guest program, which obeys on its serial port.

A Linux guest with tests/nested/guest obeys in the same way.
"""

import os
import re
import select
import time

GREETING = re.compile(r'guest-memfd \w+ ready ')


class Wrong(AssertionError):
    """What a guest should not have said, or that it says nothing."""


def values(text):
    """{name: value} of what a guest has said."""
    return dict(word.split('=') for word in text.split() if '=' in word)


class Console:
    """A base class: who derives from it sets `vm`, a QEMUMachine, or has its own fileno()."""
    vm = None
    failure = Wrong
    patience = 600      # seconds
    unread = b''

    def fileno(self):
        return self.vm.console_socket.fileno()

    def receive(self):
        """What there is to read; nothing at the end."""
        try:
            return os.read(self.fileno(), 4096)
        except ConnectionResetError:    # there was an order that QEMU had not read
            return b''

    def hear(self):
        """The next line."""
        end = time.monotonic() + self.patience
        while b'\n' not in self.unread:
            if not select.select([self], [], [], max(0, end - time.monotonic()))[0]:
                raise self.failure(f'the guest has said nothing for {self.patience} s; '
                                   f'unread: {self.unread}')
            got = self.receive()
            if not got:
                raise self.failure('QEMU has closed the console')
            self.unread += got
        line, _, self.unread = self.unread.partition(b'\n')
        return line.decode(errors='replace').strip()

    def wait_ready(self):
        """What the greeting tells. Firmware may speak before, and leave something in the line."""
        while not (greeting := GREETING.search(line := self.hear())):
            if line.startswith('error'):
                raise self.failure(f'the guest says "{line}"')
        return values(line[greeting.end():])

    def ask(self, command):
        """What the guest answers after its "ok"."""
        os.write(self.fileno(), command.encode() + b'\n')
        answer = self.hear()
        if not answer.startswith('ok'):
            raise self.failure(f'the guest was told "{command}" and says "{answer}"')
        return answer[3:]
