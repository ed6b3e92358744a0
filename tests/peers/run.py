#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run a test of QEMU's build with another program at the other end of its socket.

usage: run.py BUILD PEER
PEER is a section of the file peers beside this one. Debian's packages are unpacked below
BUILD/nested, with their own libraries: nothing is installed.
"""

import configparser
import contextlib
import fcntl
import os
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SCRIPTS = REPOSITORY / 'scripts'
sys.path += [str(SCRIPTS), str(REPOSITORY)]
import entry  # noqa: E402 pylint: disable=wrong-import-position
from bench import debian  # noqa: E402 pylint: disable=wrong-import-position
from debs import Archive  # noqa: E402 pylint: disable=wrong-import-position


@contextlib.contextmanager
def locked(build):
    """Tests share APT's lists, and Meson starts several at once."""
    (build / 'nested').mkdir(exist_ok=True)
    with open(build / 'nested/lock', 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def unpacked(build, peer):
    """The root of the peer's packages."""
    with locked(build):
        return Archive(build, peer['suite'], os.uname().machine).unpack(
            build / 'nested' / f'peer-{peer.name}', *peer['packages'].split())


# libqtest (QEMU 10.2 and later) says -run-with exit-with-parent=on, which is news to another
# QEMU. The last word has to be the emulator: libqtest finds the architecture in its name.
ANOTHER_QEMU = '''for word; do
    shift
    case $word in -run-with | exit-with-parent=on) ;; *) set -- "$@" "$word" ;; esac
done
exec {loader} "$0" "$@"'''


def command(build, peer):
    if not peer['command']:
        with locked(build):
            *loader, program = debian.command(build, peer['suite'])
        script = ANOTHER_QEMU.format(loader=shlex.join(loader))
        return shlex.join(['sh', '-c', script, program])
    program, *args = peer['command'].split()
    if 'suite' not in peer:
        return shlex.join([str(REPOSITORY / program), *args])
    # A program of another Debian needs the loader and the libraries of that one
    root = unpacked(build, peer)
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

    os.environ['GUEST_MEMFD_PEER'] = command(build, peer)
    os.environ['CHECK_LOG'] = f'peer-{peer.name}'
    os.execv(sys.executable, [sys.executable, str(SCRIPTS / 'qemu-test.py'), str(build / 'qemu'),
                              f'qtest-{os.uname().machine}/{peer["test"]}'])


if __name__ == '__main__':
    entry.run(main)
