# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of two NUMA nodes, and a QEMU that may use only the second."""

import contextlib
import os
import subprocess
from pathlib import Path

from vm import BACKEND, DEFAULT, RAM, Guest, check, test_memory

NODES = Path('/sys/devices/system/node')
CGROUPS = Path('/sys/fs/cgroup')


@contextlib.contextmanager
def memory_of_node(node):
    """What is started within, as a sysadmin or libvirt confines it."""
    group = CGROUPS / f'node{node}'
    if not group.exists():
        subprocess.run(['mount', '-t', 'cgroup2', 'none', CGROUPS], check=True)
        (CGROUPS / 'cgroup.subtree_control').write_text('+cpuset', encoding='ascii')
        group.mkdir()
    (group / 'cpuset.mems').write_text(str(node), encoding='ascii')
    (group / 'cgroup.procs').write_text(str(os.getpid()), encoding='ascii')
    try:
        yield
    finally:
        (CGROUPS / 'cgroup.procs').write_text(str(os.getpid()), encoding='ascii')


def unevictable(node):
    """Bytes: guest_memfds, and little else here."""
    for line in (NODES / f'node{node}/meminfo').read_text(encoding='ascii').splitlines():
        if 'Unevictable:' in line:
            return int(line.split()[3]) << 10
    raise AssertionError('no Unevictable in the meminfo of a node')


def bound_to_node_1():
    """All memory comes from there, and what tries the kernel for that says nothing."""
    before = unevictable(1)
    with Guest(DEFAULT, backend=f'{BACKEND},kvm-bind=on,prealloc=on,policy=bind,'
                                'host-nodes=1') as guest:
        guest.ready()
        check(unevictable(1) - before > RAM * 3 / 4, 'node 1 has given', unevictable(1) - before)
        guest.check_bound()
        test_memory(guest)
        check("'policy'" not in guest.log(), guest.log())


def policy():
    """Where nothing but the policy asks for that node: the CPU is of the other one."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        bound_to_node_1()
    finally:
        os.sched_setaffinity(0, cpus)


def confined():
    """Where the other node is out of reach."""
    with memory_of_node(1):
        bound_to_node_1()
