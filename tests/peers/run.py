#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a test of QEMU's build with a program of Debian's at the other end of its socket.

usage: run.py BUILD PEER
PEER is a section of the file peers beside this one. The program's packages are unpacked
below BUILD/nested, with their own libraries: nothing is installed.
"""

import configparser
import fcntl
import os
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[1] / 'scripts'
sys.path.append(str(SCRIPTS))
from debs import Archive  # noqa: E402 pylint: disable=wrong-import-position


def command(root, line):
    """The program with the loader and the libraries of its own system."""
    program, *args = line.split()
    loader = next(root.glob('**/ld-linux-*.so.*'))
    libraries = ':'.join(str(d) for d in root.glob('**/*-linux-gnu') if d.is_dir())
    return shlex.join([str(loader), '--library-path', libraries, str(root / program), *args])


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.split('\n\n', maxsplit=1)[1])
    build = Path(sys.argv[1]).resolve()
    peers = configparser.ConfigParser()
    peers.read(HERE / 'peers')
    if sys.argv[2] not in peers:
        sys.exit(f'error: no peer {sys.argv[2]}; there are: {", ".join(peers.sections())}')
    peer = peers[sys.argv[2]]

    (build / 'nested').mkdir(exist_ok=True)
    with open(build / 'nested/lock', 'w', encoding='ascii') as lock:
        # Tests share APT's lists, and Meson starts several at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        root = Archive(build, peer['suite'], os.uname().machine).unpack(
            build / 'nested' / f'peer-{peer.name}', *peer['packages'].split())
    os.environ['GUEST_MEMFD_PEER'] = command(root, peer['command'])
    os.execv(sys.executable, [sys.executable, str(SCRIPTS / 'qemu-test.py'), str(build / 'qemu'),
                              f'qtest-{os.uname().machine}/{peer["test"]}'])


if __name__ == '__main__':
    main()
