#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages of any architecture, unpacked below BUILD/nested; nothing is installed.

usage: debs.py BUILD SUITE ARCH DIR PACKAGE...
makes DIR, a system root, from the packages and all that they depend on.
"""

import fnmatch
import functools
import lzma
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import entry

SCRIPTS = Path(__file__).resolve().parent
DEBIAN_ARCH = {'x86_64': 'amd64', 'aarch64': 'arm64'}


def version_key(version):
    return [int(n) for n in re.findall(r'\d+', version)]


class Archive:
    """What a suite offers for an architecture; nothing is fetched before it is needed."""

    def __init__(self, build, suite, arch):
        self.suite = suite
        self.arch = DEBIAN_ARCH[arch]
        self.top = build / 'nested'
        self.dir = self.top / 'apt' / f'{suite}-{self.arch}'

    def apt(self, *command, **kwargs):
        return subprocess.run([SCRIPTS / 'private-apt', self.dir, self.suite, *command],
                              env=dict(os.environ, APT_ARCH=self.arch), check=True,
                              text=True, **kwargs)

    def lists(self):
        if not (self.dir / 'fetched').exists():
            self.apt('apt-get', 'update', stdout=sys.stderr)
            (self.dir / 'fetched').touch()

    @functools.cached_property
    def names(self):
        self.lists()
        return self.apt('apt-cache', 'pkgnames', stdout=subprocess.PIPE).stdout.split()

    def unpack(self, into, *packages, depends=False):
        """Make the directory `into` from the packages, with all that they depend on or not.

        Of those that are files, APT only takes what they depend on.
        """
        complete = into / '.complete'
        if complete.exists() and complete.read_text() == ' '.join(packages):
            return into
        print(f'# fetching {" ".join(packages)} ({self.suite}, {self.arch})',
              file=sys.stderr, flush=True)
        self.lists()
        debs = into.with_suffix('.debs')
        for old in into, debs:
            shutil.rmtree(old, ignore_errors=True)
        debs.mkdir(parents=True)
        if depends:
            self.apt('apt-get', '-qq', '-y', '--no-install-recommends', '--download-only',
                     '-o', f'Dir::Cache::archives={debs.resolve()}', 'install', *packages,
                     stdout=subprocess.DEVNULL)
        else:
            self.apt('apt-get', '-qq', 'download', *packages, cwd=debs)
        for deb in [*debs.glob('*.deb'), *(p for p in packages if os.path.isfile(p))]:
            subprocess.run(['dpkg-deb', '-x', deb, into], check=True)
        shutil.rmtree(debs)
        complete.write_text(' '.join(packages))
        return into


class Kernel:
    """A Debian kernel: the first of the wanted versions (patterns) that can be had."""

    def __init__(self, archive, wanted, flavour=None, modular=True):
        self.top = archive.top / 'kernel'
        self.modular = modular
        self.flavour = flavour or f'cloud-{archive.arch}'
        self.image = None
        for pattern in wanted.split():
            if self._unpacked(pattern) or self._offered(archive, pattern):
                self._find()
                return
        sys.exit(f'error: Debian {archive.suite} has no kernel {wanted} ({self.flavour}): '
                 'name another one in tests/nested/hosts')

    def _best(self, names, pattern):
        match = [re.match(rf'(?:.*-)?([\d.]+)\+deb\d+-{self.flavour}$', n) for n in names]
        return max((m for m in match if m and fnmatch.fnmatch(m[1], pattern)),
                   key=lambda m: version_key(m[1]), default=None)

    def _unpacked(self, pattern):
        done = [p.parent.name for p in self.top.glob('*/.complete')]
        best = self._best(done, pattern)
        if best:
            self.tree = self.top / best.string
        return best

    def _offered(self, archive, pattern):
        names = [n for n in archive.names if re.match(r'linux-(binary|image)-\d', n)]
        best = self._best(names, pattern)
        if not best:
            return None
        # Since 7.1, an image without modules; before that all is in linux-image.
        name = re.sub(r'^linux-(binary|image)-', '', best.string)
        parts = [f'linux-binary-{name}', f'linux-modules-{name}']
        packages = [p for p in parts[:1 + self.modular]
                    if p in archive.names] or [f'linux-image-{name}']
        self.tree = archive.unpack(self.top / name, *packages)
        return best

    def _find(self):
        images = [*self.tree.glob('usr/lib/modules/*/vmlinuz'), *self.tree.glob('boot/vmlinuz-*')]
        self.image = images[0]
        self.version = self.tree.name.partition('+')[0]

    def modules(self, names):
        """The contents of modules by their names, each after those that it depends on."""
        def key(name):
            return name.replace('-', '_')

        def add(name):
            if key(name) in contents:
                return
            if key(name) not in files:
                sys.exit(f'error: kernel {self.tree.name} has no module {name}')
            file = files[key(name)]
            content = file.read_bytes()
            if file.suffix == '.xz':
                content = lzma.decompress(content)
            for other in re.search(rb'\0depends=([^\0]*)', content)[1].decode().split(','):
                if other:
                    add(other)
            contents[key(name)] = content

        files = {key(f.name.partition('.')[0]): f for f in self.tree.glob('**/*.ko*')}
        contents = {}
        for name in names:
            add(name)
        return contents


def relative_links(root):
    """Let absolute symbolic links stay in the root."""
    for link in root.rglob('*'):
        if link.is_symlink() and os.path.isabs(target := os.readlink(link)):
            link.unlink()
            link.symlink_to(os.path.relpath(f'{root}{target}', link.parent))


def main():
    if len(sys.argv) < 6:
        sys.exit(__doc__.split('\n\n', maxsplit=1)[1])
    build, suite, arch, into, *packages = sys.argv[1:]
    root = Archive(Path(build), suite, arch).unpack(Path(into), *packages, depends=True)
    relative_links(root)


if __name__ == '__main__':
    entry.run(main)
