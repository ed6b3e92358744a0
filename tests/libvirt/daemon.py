# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirtd and virtlogd of our own, which the machine's own libvirt does not meet.

As root, libvirt's directories are compiled in. So each host has a mount namespace in which
they are its own: libvirt needs no options then, and several hosts run side by side. All of
them are in one namespace of processes, which end with the test, however it ends, and of a
network without any interface. All that the machine has of it is an empty directory as mount
point for each of libvirt's that it had not.
"""

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Where libvirt has its files, and the directory of the host that stands there
PLACES = {'run': '/run/libvirt', 'lib': '/var/lib/libvirt', 'cache': '/var/cache/libvirt',
          'log': '/var/log/libvirt', 'etc': '/etc/libvirt'}
# The user that Debian's libvirt runs QEMU as, who comes with the package of its units
USER = 'libvirt-qemu'
ID = 64055
INSIDE = 'GUEST_MEMFD_LIBVIRT_TEST'
# Where Debian has daemons; not all who are root look there.
os.environ['PATH'] += ':/usr/sbin:/sbin'
UNSHARE = ['unshare', '--mount', '--propagation', 'private']
# cgroups would be the machine's
QEMU_CONF = 'cgroup_controllers = []\n'
PLAIN_CONF = 'user = "root"\ngroup = "root"\nnamespaces = []\nsecurity_driver = "none"\n'


def enter():
    """Go on in namespaces of our own; the directory returned is gone when they are."""
    if INSIDE in os.environ:
        scratch = Path(os.environ[INSIDE])
        run('mount', '-t', 'tmpfs', '-o', 'mode=755,size=4G', 'none', scratch)
        return scratch
    for place in PLACES.values():
        Path(place).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='guest-memfd-libvirt.') as scratch:
        # A shell as process 1 collects the processes whose parents have gone.
        sys.exit(subprocess.run([*UNSHARE, '--net', '--pid', '--fork', '--kill-child',
                                 '--mount-proc', 'sh', '-c', '"$@"; exit $?', 'sh',
                                 sys.executable, *sys.argv],
                                env={**os.environ, INSIDE: scratch}, check=False).returncode)


def reason_not_to(tools):
    """Why this machine cannot run libvirt in this way, and these tools; or nothing."""
    for tool in ('libvirtd', 'virtlogd', 'virsh', 'unshare', *tools):
        if not shutil.which(tool):
            return f'no {tool} here'
    if subprocess.run([*UNSHARE, 'true'], stderr=subprocess.DEVNULL, check=False).returncode:
        return 'only root, and not in every container, can mount libvirt directories of its own'
    return None


def run(*command):
    """What the command prints."""
    return subprocess.run([str(c) for c in command], text=True, check=True,
                          stdout=subprocess.PIPE).stdout.strip()


def wait_for(condition, what, seconds=600):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f'{what}: not within {seconds} s')
        time.sleep(0.05)
    return result


class VirshError(Exception):
    """What virsh says when it fails."""


class Host:
    """A machine, as far as libvirt can tell."""

    def __init__(self, top, shared, conf=PLAIN_CONF, programs=''):
        """Its files are in the directory @top; @shared has the guests' disks.

        @programs: the directory of emulators that libvirt finds by itself
        """
        self.top = top
        self.path = os.pathsep.join(str(p) for p in (programs, os.environ['PATH']) if p)
        self.processes = {}
        for name in PLACES:
            (top / name).mkdir(parents=True)
        (top / 'lib/images').symlink_to(shared)
        (top / 'etc/qemu.conf').write_text(QEMU_CONF + conf)
        # Two hosts with one UUID do not migrate.
        uuid = Path('/proc/sys/kernel/random/uuid').read_text().strip()
        (top / 'etc/libvirtd.conf').write_text(f'host_uuid = "{uuid}"\nauth_unix_rw = "none"\n'
                                               'log_outputs = "3:stderr"\n')
        self.binds = {top / name: place for name, place in PLACES.items()}
        self.add_user()
        self.start('virtlogd')
        self.start('libvirtd')

    def add_user(self):
        """QEMU's user, without whom libvirtd does not start even if it is to use another.

        udev lets a group use /dev/kvm. Here it is the user's own.
        """
        try:
            gid = pwd.getpwnam(USER).pw_gid
        except KeyError:
            gid = ID
            for file, line in (('/etc/passwd', f'{USER}:x:{ID}:{ID}::/nonexistent:/bin/false'),
                               ('/etc/group', f'{USER}:x:{ID}:')):
                copy = self.top / Path(file).name
                copy.write_text(f'{Path(file).read_text()}{line}\n')
                self.binds[copy] = file
        kvm = self.top / 'kvm'
        os.mknod(kvm, stat.S_IFCHR, os.stat('/dev/kvm').st_rdev)
        os.chown(kvm, 0, gid)
        kvm.chmod(0o660)
        self.binds[kvm] = '/dev/kvm'

    def start(self, daemon):
        mounts = ''.join(f'mount --bind {source} {place} && '
                         for source, place in self.binds.items())
        with open(self.top / f'{daemon}.log', 'a', encoding='utf-8') as log:
            self.processes[daemon] = subprocess.Popen(
                [*UNSHARE, 'sh', '-c',
                 mounts + f'exec {daemon} --pid-file {self.top}/{daemon}.pid'],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {'PATH': self.path})
        socket = self.top / 'run' / ('libvirt-sock' if daemon == 'libvirtd' else 'virtlogd-sock')
        wait_for(lambda: socket.exists() or self.processes[daemon].poll() is not None,
                 f'{daemon} listens')
        if self.processes[daemon].poll() is not None:
            raise RuntimeError(f'{daemon} has ended:\n{self.logs()}')

    def stop(self, daemon):
        self.processes[daemon].terminate()
        self.processes.pop(daemon).wait(60)

    def close(self):
        for daemon in reversed(list(self.processes)):
            self.stop(daemon)

    @property
    def uri(self):
        return f'qemu+unix:///system?socket={self.top}/run/libvirt-sock'

    def command(self, *args):
        return ['virsh', '-q', '-c', self.uri, *(str(a) for a in args)]

    def virsh(self, *args):
        """What virsh prints."""
        result = subprocess.run(self.command(*args), text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, timeout=900, check=False)
        if result.returncode:
            raise VirshError(result.stderr.strip())
        return result.stdout.strip()

    def logs(self):
        """The last that the daemons and their QEMUs have said."""
        files = [*self.top.glob('*.log'), *self.top.glob('log/qemu/*.log')]
        return ''.join(f'--- {f.relative_to(self.top)}\n'
                       + ''.join(f.read_text(errors='replace').splitlines(True)[-50:])
                       for f in files)
