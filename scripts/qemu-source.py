#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Bring QEMU's source into BUILD/src, once.

BUILD/src/pristine is QEMU as it came, BUILD/src/qemu the copy that the overlay is laid
over and that is built. The source is the Debian package that the base pins, or what
--source names: a tree (copied, never touched), a release tarball, or a .dsc. Exits with
GONE when the mirror has the pinned package no more, nor a later one of its series.
"""

import argparse
import hashlib
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import bases
import entry

SCRIPTS = Path(__file__).resolve().parent
GONE = 3
REMEDY = 'Point QEMU_SRC at a QEMU source tree or release tarball instead.'


def fail(message, code=1):
    print(f'error: {message}', file=sys.stderr)
    sys.exit(code)


def run(*command, **kwargs):
    return subprocess.run([str(c) for c in command], check=True, **kwargs)


def later(a, b):
    return subprocess.run(['dpkg', '--compare-versions', a, 'gt', b]).returncode == 0


def fetch(base, build, into):
    """Download the pinned source package, or the newest of its series."""
    def apt(tool, *args, **kwargs):
        return run(SCRIPTS / 'private-apt', build / 'apt', base.suite, tool, *args,
                   **kwargs)

    apt('apt-get', 'update')
    shown = apt('apt-cache', 'showsrc', '--only-source', 'qemu',
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    offered = re.findall(r'^Version: (.*)', shown, re.M)
    version = base.version
    if not offered:
        fail(f'no package list of Debian {base.suite} could be fetched. {REMEDY}')
    if version not in offered:
        for v in offered:
            if re.match(rf'\d+:{re.escape(base.series)}\.', v) and later(v, version):
                version = v
        if version == base.version:
            fail(f'the mirror has neither QEMU {version} nor a later {base.series} in '
                 f'{base.suite}. {REMEDY}', GONE)
        print(f'notice: {base.version} has left the mirror; taking {version} of the '
              'same series, which its archive signature vouches for', flush=True)

    print(f'Fetching QEMU {version} from Debian {base.suite}', flush=True)
    into.mkdir(parents=True, exist_ok=True)
    apt('apt-get', '-qq', 'source', '--download-only', f'qemu={version}', cwd=into)
    if version == base.version:
        for name, expected in base.hashes.items():
            if hashlib.sha256((into / name).read_bytes()).hexdigest() != expected:
                fail(f'{into / name} is not the file that {base.source} pins (SHA-256)')
    return into / f'qemu_{version.split(":")[-1]}.dsc'


def unpack(source, into):
    """Make the tree `into` from a directory, a .dsc or a tarball."""
    if '.orig.tar' in source.name:
        # Debian takes blobs out of it and adapts the build by the patches of the .dsc.
        found = list(source.parent.glob(source.name.split('.orig.tar')[0] + '-*.dsc'))
        if not found:
            fail(f'{source} builds only with the patches of its .dsc: put that beside it')
        source = found[0]
    if source.is_dir():
        shutil.copytree(source, into, symlinks=True,
                        ignore=shutil.ignore_patterns('.git', 'build'))
    elif source.suffix == '.dsc':
        run('dpkg-source', '--no-check', '-x', source, into, stdout=subprocess.DEVNULL)
    else:
        into.mkdir()
        run('tar', '-xf', source, '-C', into, '--strip-components=1')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--base', default='', metavar='SERIES',
                        help='directory of base/ (default: the one that base/default is)')
    parser.add_argument('--source', default='', help='tree, tarball or .dsc to use')
    parser.add_argument('build', type=Path)
    args = parser.parse_args()
    args.build = args.build.resolve()

    base = bases.Base(args.base) if args.base else bases.default()
    source = Path(args.source or '.').resolve()
    wanted = str(source) if args.source else f'Debian {base.version}'
    src = args.build / 'src'
    origin = src / 'origin'
    if origin.exists() and origin.read_text() == wanted:
        return
    if args.source and not source.exists():
        fail(f'QEMU_SRC={args.source}: no such file or directory')

    start = time.time()
    if not args.source:
        try:
            source = fetch(base, args.build, src / 'download')
        except subprocess.CalledProcessError:
            fail(f'cannot fetch QEMU {base.version}. {REMEDY}')

    # Another source leaves nothing of the old one behind, built files included.
    origin.unlink(missing_ok=True)
    for old in (src / 'pristine', src / 'qemu', src / 'overlay.json', args.build / 'qemu'):
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    print(f'Unpacking {source.name}', flush=True)
    src.mkdir(parents=True, exist_ok=True)
    try:
        unpack(source, src / 'pristine')
    except (subprocess.CalledProcessError, shutil.Error) as e:
        fail(f'cannot unpack {source}: {e}')
    version = src / 'pristine/VERSION'
    if not version.exists() or not (src / 'pristine/configure').exists():
        fail(f'{source} is no QEMU source: it has no VERSION and configure. {REMEDY}')
    series = bases.of_tree(src / 'pristine').series
    if series != base.series:
        fail(f'{source} is QEMU {series} and this build is for {base.series}: '
             f'say BASE={series}')
    version = version.read_text().strip()
    run('cp', '-a', '--reflink=auto', src / 'pristine', src / 'qemu')
    origin.write_text(wanted)
    print(f'QEMU {version} unpacked in {time.time() - start:.0f} s', flush=True)


if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.SIG_DFL)     # Ctrl-C is no case for a traceback
    entry.run(main)
