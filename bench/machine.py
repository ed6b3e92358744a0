# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that figures come from, in words."""

import fcntl
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from .backends import THP
from .goals import SHADOW, TWO_DIMENSIONAL
from .host import meminfo

KVM_CREATE_VM, KVM_CHECK_EXTENSION = 0xae01, 0xae03
KVM_CAP_PRE_FAULT_MEMORY = 236


def capability(number):
    kvm = os.open('/dev/kvm', os.O_RDWR | os.O_CLOEXEC)
    vm = fcntl.ioctl(kvm, KVM_CREATE_VM)
    try:
        return fcntl.ioctl(vm, KVM_CHECK_EXTENSION, number)
    finally:
        os.close(vm)
        os.close(kvm)


def prefaults():
    """Whether KVM can fill the guest's page tables ahead."""
    return capability(KVM_CAP_PRE_FAULT_MEMORY) > 0


def paging():
    """How KVM translates the guest's addresses. On x86 it cannot prefault exactly if it shadows."""
    return TWO_DIMENSIONAL if os.uname().machine != 'x86_64' or prefaults() else SHADOW


def processor():
    text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    found = re.search(r'^(?:model name|CPU part)\s*: (.*)', text, re.MULTILINE)
    return found[1] if found else os.uname().machine


def output(*command):
    """Its first line; nothing if there is no such program."""
    if not shutil.which(command[0]):
        return ''
    result = subprocess.run(command, text=True, check=False, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL)
    return result.stdout.split('\n')[0].strip()


def describe(env):
    """All that a reader of the figures has to know; the load is added when they are there."""
    flags = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    return {
        'kernel': os.uname().release,
        'arch': os.uname().machine,
        'processor': processor(),
        'cpus': os.cpu_count(),
        'memory': meminfo()['MemTotal'],
        'paging': env.paging,
        'virtual': bool(re.search(r'^flags.*\bhypervisor\b', flags, re.MULTILINE)),
        'free-memory': 'stays warm' if env.memory_stays_warm else 'may go cold',
        'huge-pages': THP.read_text(encoding='ascii').strip() if THP.exists() else 'none',
        'qemu': output(env.program, '--version'),
        'commit': output('git', '-C', str(Path(__file__).parent), 'rev-parse', '--short=12',
                         'HEAD') or 'unknown',
        'emulated': env.emulated,
        'date': time.strftime('%Y-%m-%d', time.gmtime()),
    }


def load():
    """How busy the machine is."""
    return os.getloadavg()[0]
