# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's memory: what a process has of it, and that it is warm."""

import contextlib
import ctypes
import fcntl
import mmap
import os
import struct
import tempfile
from pathlib import Path

MADV_POPULATE_WRITE = 23
PR_SET_THP_DISABLE = 41
KVM_CREATE_VM, KVM_CREATE_GUEST_MEMFD = 0xae01, 0xc040aed4
# That the host can map it, and that it does from the beginning
GUEST_MEMFD_FLAGS = 3
LIBC = ctypes.CDLL(None, use_errno=True)
# Blocks of so many pages (a power of 2) and more are reported as free; 11: none has so many
REPORTED = Path('/sys/module/page_reporting/parameters/page_reporting_order')
NONE_REPORTED = '11'
VIRTIO = Path('/sys/bus/virtio/devices')
BALLOON, F_REPORTING = '0x0005', 5


def guest_memfd(size):
    """A mapping of one, of a virtual machine that is there for that alone."""
    kvm = os.open('/dev/kvm', os.O_RDWR)
    machine = fcntl.ioctl(kvm, KVM_CREATE_VM)
    wish = bytearray(struct.pack('<8Q', size, GUEST_MEMFD_FLAGS, *[0] * 6))
    return mmap.mmap(fcntl.ioctl(machine, KVM_CREATE_GUEST_MEMFD, wish), size)


def warm(size, gmem=False):
    """Let another process have so much memory and give it back.

    On a virtual host, memory that has not been used yet has to come from the host's own host
    first. Whoever is measured then must not pay for that. Linux keeps memory that it can move
    apart from other memory, such as that of guest_memfds.
    """
    if not size:
        return
    child = os.fork()
    if not child:
        try:
            (guest_memfd(size) if gmem else mmap.mmap(-1, size)).madvise(MADV_POPULATE_WRITE)
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise OSError(f'the host has no {size >> 20} MiB of memory to touch beforehand')


def free_memory_is_reported():
    """Whether this is a virtual machine whose balloon tells its host which memory is free."""
    for device in VIRTIO.glob('virtio*'):
        if (device / 'device').read_text(encoding='ascii').strip() == BALLOON:
            return (device / 'features').read_text(encoding='ascii')[F_REPORTING] == '1'
    return False


@contextlib.contextmanager
def free_memory_kept():
    """Once warm, memory stays so if this yields true.

    Where it is reported as free (Linux, mm/page_reporting.c), the host takes it two seconds
    later, and whoever has it next pays for that. So that ends for the time, if it can.
    """
    kept, before = not free_memory_is_reported(), None
    if not kept:
        with contextlib.suppress(OSError):
            before = REPORTED.read_text(encoding='ascii')
            REPORTED.write_text(NONE_REPORTED, encoding='ascii')
            kept = True
    try:
        yield kept
    finally:
        if before and kept:
            REPORTED.write_text(before, encoding='ascii')


@contextlib.contextmanager
def huge_pages(allowed):
    """Whether programs that are started meanwhile may have transparent huge pages."""
    LIBC.prctl(PR_SET_THP_DISABLE, int(not allowed), 0, 0, 0)
    try:
        yield
    finally:
        LIBC.prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0)


def table(text):
    """{name: bytes} of lines like "VmPTE:  12 kB" or "anon 4096"."""
    found = {}
    for line in text.splitlines():
        words = line.replace(':', ' ').split()
        if len(words) > 1 and words[1].isdigit():
            found[words[0]] = int(words[1]) << (10 if words[2:] == ['kB'] else 0)
    return found


def meminfo():
    return table(Path('/proc/meminfo').read_text(encoding='ascii'))


def process(pid):
    return table(Path(f'/proc/{pid}/status').read_text(encoding='ascii'))


def listens(socket):
    """A socket's file appears before anybody listens."""
    return any(' 00010000 ' in line and line.endswith(str(socket))
               for line in Path('/proc/net/unix').read_text(encoding='utf-8').splitlines())


def processor_time(pid, without=()):
    """Seconds that the threads of a process have had, but for these."""
    return sum(int((task / 'schedstat').read_text(encoding='ascii').split()[0])
               for task in Path(f'/proc/{pid}/task').iterdir() if int(task.name) not in without) / 1e9


class Group:
    """A memory cgroup for one process, which says what is charged to it."""

    def __init__(self, top):
        self.path = Path(tempfile.mkdtemp(prefix='guest-memfd-bench.', dir=top))
        self.version = 2 if (self.path / 'memory.current').exists() else 1
        self.tables = meminfo()['SecPageTables']

    def wrapper(self):
        """Words before a command that is to be in it."""
        return ['/bin/sh', '-c', 'echo $$ >"$0" && exec "$@"', str(self.path / 'cgroup.procs')]

    def limit(self, size):
        """So much memory, and the host's killer comes."""
        name = {1: 'memory.limit_in_bytes', 2: 'memory.max'}[self.version]
        (self.path / name).write_text(str(size), encoding='ascii')

    def charge(self):
        name = {1: 'memory.usage_in_bytes', 2: 'memory.current'}[self.version]
        return int((self.path / name).read_text(encoding='ascii'))

    def kept(self):
        """What of that cannot be written to a disk, or be dropped."""
        stat = table((self.path / 'memory.stat').read_text(encoding='ascii'))
        return stat['unevictable'] + stat[{1: 'rss', 2: 'anon'}[self.version]]

    def kvm_tables(self):
        """The page tables that KVM has for the guest; of version 1, only the host can tell."""
        if self.version == 1:
            return meminfo()['SecPageTables'] - self.tables
        return table((self.path / 'memory.stat').read_text(encoding='ascii'))['sec_pagetables']

    def remove(self):
        self.path.rmdir()


@contextlib.contextmanager
def cgroups():
    """A directory in which this process may create memory cgroups, of either version."""
    mounts = [line.split() for line in Path('/proc/mounts').read_text().splitlines()]
    top = next((Path(m[1]) for m in mounts
                if m[2] == 'cgroup' and 'memory' in m[3].split(',')), None)
    if top:
        yield top
        return
    top = next((Path(m[1]) for m in mounts if m[2] == 'cgroup2'), None)
    made = None
    if not top:
        # A host of tests/nested, which has none mounted
        top = made = Path(tempfile.mkdtemp(prefix='guest-memfd-bench-cgroup.'))
        if LIBC.mount(b'none', os.fsencode(top), b'cgroup2', 0, None):
            made.rmdir()
            raise OSError(f'cannot mount cgroup2: {os.strerror(ctypes.get_errno())}')
    try:
        (top / 'cgroup.subtree_control').write_text('+memory', encoding='ascii')
        yield top
    finally:
        if made:
            LIBC.umount2(os.fsencode(made), 2)          # MNT_DETACH
            made.rmdir()
