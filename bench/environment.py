# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the cases run: programs, directories, and what KVM can do here."""

import contextlib
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import debian, host, machine
from .cases import Broken
from .guest import Guest


class Environment:
    """breakage: each case once and small, to see whether it works; emulated: the KVM is"""

    def __init__(self, build, breakage, emulated):
        arch = os.uname().machine
        self.build = build
        self.breakage = breakage
        self.emulated = emulated
        self.program = str(build / f'bin/qemu-system-{arch}')
        self.payload = build / f'qemu/tests/guest-memfd/payload-{arch}.bin'
        if arch == 'aarch64':
            self.machine, self.cpu, self.ram_start = 'virt,gic-version=3', 'host', 1 << 30
        else:
            self.machine, self.ram_start = 'q35', 0
            self.cpu = 'host' if emulated else 'host,-arch-capabilities'
        self.prefaults = machine.prefaults()
        self.paging = machine.paging()
        self.stack = contextlib.ExitStack()
        self.tmp = self.cgroups = self.no_cgroups = None
        self.memory_stays_warm = False
        self.hertz = None       # of the clock that guests have; all have the same

    def __enter__(self):
        self.tmp = Path(self.stack.enter_context(
            tempfile.TemporaryDirectory(prefix='guest-memfd-bench.')))
        try:
            self.cgroups = self.stack.enter_context(host.cgroups())
        except OSError as e:
            self.no_cgroups = f'no memory cgroup can be created here, as root can: {e}'
        self.memory_stays_warm = self.stack.enter_context(host.free_memory_kept())
        return self

    def __exit__(self, *args):
        self.stack.close()

    def pick(self, normal, small):
        return small if self.breakage else normal

    def qemu(self, backend):
        """The program, and before it what loads it."""
        if backend.debian:
            return debian.command(self.build)
        return [self.program]


@dataclass
class Run:
    """What a case's function has: one kind of RAM, one size."""
    env: Environment
    backend: object
    size: int

    def guest(self, *options, size=None, **kwargs):
        trace = ['-trace', 'kvm_guest_memfd_prefault'] if self.backend.gmem else []
        return Guest(self.env, self.backend, size or self.size, *options, *trace, **kwargs)

    def pick(self, normal, small):
        return self.env.pick(normal, small)

    def group(self):
        if not self.env.cgroups:
            raise Broken(self.env.no_cgroups)
        return host.Group(self.env.cgroups)

    def timed(self, function, *args):
        start = time.monotonic()
        function(*args)
        return time.monotonic() - start
