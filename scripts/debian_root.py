# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian system in a directory, to build packages in, and to install them in."""

import hashlib
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

PRIVATE_APT = Path(__file__).resolve().parent / 'private-apt'
# What runs and what is fetched there leaves this behind, whatever is installed.
# (Of these, Debian 13's netbase makes etc/hosts, and leaves it.)
VOLATILE = ('dev', 'proc', 'sys', 'run', 'tmp', 'var/tmp', 'var/cache', 'var/log', 'var/backups',
            'var/lib/apt', 'var/lib/dpkg', 'etc/hosts', 'etc/resolv.conf', 'etc/ld.so.cache',
            'usr/sbin/policy-rc.d')
ENVIRONMENT = {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'DEBIAN_FRONTEND': 'noninteractive',
               'LC_ALL': 'C.UTF-8', 'HOME': '/root'}


class Root:
    def __init__(self, scratch, suite, name=None):
        scratch.mkdir(exist_ok=True)
        self.suite = suite
        self.path = scratch / (name or suite)
        self.cache = None
        base = scratch / f'{suite}.tar'
        if not base.exists():
            self.bootstrap(scratch, base)
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        subprocess.run(['tar', '-xpf', base, '-C', self.path], check=True)
        # No service starts here; names of hosts are found as on this machine.
        policy = self.path / 'usr/sbin/policy-rc.d'
        policy.write_text('#!/bin/sh\nexit 101\n')
        policy.chmod(0o755)
        shutil.copy('/etc/resolv.conf', self.path / 'etc/resolv.conf')
        self.apt('update', '-qq')

    def bootstrap(self, scratch, base):
        """From the mirror that this machine's own APT uses."""
        print(f'# a root of Debian {self.suite}', flush=True)
        private = scratch / f'apt-{self.suite}'
        subprocess.run([PRIVATE_APT, private, self.suite, 'apt-get', 'update'], check=True,
                       stdout=sys.stderr)
        new = base.with_name(f'new-{base.name}')
        subprocess.run(['mmdebstrap', '--quiet', '--variant=minbase', self.suite, new,
                        private / 'sources.list'], check=True, stdout=sys.stderr)
        new.replace(base)

    def add_architecture(self, arch):
        """Have packages of another architecture beside its own."""
        for file in (self.path / 'etc/apt/sources.list.d').iterdir():
            file.write_text(re.sub(r'\barch=\w+', rf'\g<0>,{arch}', file.read_text()))
        self.run('dpkg', '--add-architecture', arch)
        self.apt('update', '-qq')

    def command(self, *command):
        """One that runs in it, with mounts that end with it."""
        cache = f'mkdir -p "$root/ccache"; mount --bind {shlex.quote(str(self.cache))} ' \
            '"$root/ccache"; ' if self.cache else ''
        return ['unshare', '--mount', '--propagation', 'private', 'sh', '-ec',
                f'root=$1; shift; {cache}mount --rbind /dev "$root/dev"; '
                'mount -t proc proc "$root/proc"; mount -t sysfs sys "$root/sys"; '
                'mount -t tmpfs run "$root/run"; exec chroot "$root" "$@"',
                'sh', self.path, *command]

    def run(self, *command, check=True, **kwargs):
        """Run it there; what it says is returned, and shown if it fails."""
        result = subprocess.run(self.command(*command), text=True, check=False,
                                errors='replace', stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env=ENVIRONMENT, **kwargs)
        if check and result.returncode:
            raise AssertionError(f'{command} in {self.suite}:\n{result.stdout[-6000:]}')
        return result.stdout

    def show(self, *command, **more):
        """Run it there, with what it says where all can read it."""
        result = subprocess.run(self.command(*command), check=False, stdin=subprocess.DEVNULL,
                                env={**ENVIRONMENT, **more})
        if result.returncode:
            sys.exit(f'error: in the root of {self.suite} this fails: {shlex.join(command)}')

    def release(self):
        """What its /etc/os-release says."""
        lines = (self.path / 'etc/os-release').read_text().splitlines()
        return {line.partition('=')[0]: shlex.split(line.partition('=')[2])[0]
                for line in lines if '=' in line}

    def apt(self, *arguments):
        # What is only recommended or suggested by a package here is not kept for it. Nor is what
        # was fetched: it would be a fifth of the root.
        options = [f'-oAPT::{name}=false' for name in (
            'AutoRemove::RecommendsImportant', 'AutoRemove::SuggestsImportant',
            'Keep-Downloaded-Packages')]
        return self.run('apt-get', '-y', '--no-install-recommends', *options, *arguments)

    def install(self, debs):
        """Install packages from files."""
        place = self.path / 'tmp/debs'
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for deb in debs:
            shutil.copy(deb, place)
        said = self.apt('install', *(f'/tmp/debs/{deb.name}' for deb in debs))
        shutil.rmtree(place)
        return said

    def packages(self):
        """The packages that it has, and what is left of those that were removed: {name: state}"""
        lines = self.run('dpkg-query', '-W', '-f', '${Package} ${db:Status-Abbrev}\n')
        return dict(line.split() for line in lines.splitlines())

    def files(self):
        """Each file and directory, with what it is."""
        found = {}
        for where, directories, names in os.walk(self.path):
            here = Path(where).relative_to(self.path)
            directories[:] = [d for d in directories if str(here / d) not in VOLATILE]
            for name in directories + names:
                if str(here / name) not in VOLATILE:
                    found[str(here / name)] = self.describe(Path(where, name))
        return found

    @staticmethod
    def describe(path):
        status = path.lstat()
        about = [stat.filemode(status.st_mode), status.st_uid, status.st_gid]
        if stat.S_ISLNK(status.st_mode):
            about.append(os.readlink(path))
        elif stat.S_ISREG(status.st_mode):
            about.append(hashlib.sha256(path.read_bytes()).hexdigest())
        return about


def difference(before, after):
    """What two answers of files() or packages() differ in."""
    return sorted([f'- {n} {before[n]}' for n in before.keys() - after.keys()]
                  + [f'+ {n} {after[n]}' for n in after.keys() - before.keys()]
                  + [f'! {n} {before[n]} {after[n]}' for n in before.keys() & after.keys()
                     if before[n] != after[n]])
