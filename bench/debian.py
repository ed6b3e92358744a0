# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU that users of this machine's Debian have: unpacked, not installed."""

import functools
import os
import sys
from pathlib import Path

from .cases import Broken

sys.path.append(str(Path(__file__).resolve().parents[1] / 'scripts'))
from debs import Archive, relative_links  # noqa: E402 pylint: disable=wrong-import-position
PACKAGE = {'x86_64': 'qemu-system-x86', 'aarch64': 'qemu-system-arm'}


def suite():
    for line in Path('/etc/os-release').read_text(encoding='utf-8').splitlines():
        name, _, value = line.partition('=')
        if name == 'VERSION_CODENAME':
            return value
    raise Broken("this machine is no Debian whose QEMU could be measured beside ours")


def fetch(build, release):
    """The system root that has it, with all of its libraries."""
    arch = os.uname().machine
    archive = Archive(build, release, arch)
    root = build / f'bench/debian-{release}'
    if not (root / 'linked').exists():
        archive.unpack(root, PACKAGE[arch], 'seabios', depends=True)
        relative_links(root)
        (root / 'linked').touch()
    return root


@functools.cache
def command(build, release=None):
    """How to run it: by the root's own loader, with the root's own libraries."""
    arch = os.uname().machine
    root = fetch(build, release or suite())
    loader = next(p for p in [*root.glob('lib*/ld-linux-*'), *root.glob('usr/lib*/ld-linux-*'),
                              *root.glob('lib/*-linux-gnu/ld-linux-*')])
    libraries = [root / d / f'{arch}-linux-gnu' for d in ('lib', 'usr/lib')]
    libraries += [p.parent for p in root.glob(f'usr/lib/{arch}-linux-gnu/*/lib*.so*')]
    paths = ':'.join(dict.fromkeys(str(p) for p in libraries))
    return [str(loader), '--library-path', paths, str(root / f'usr/bin/qemu-system-{arch}')]
