#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot a KVM host under our own TCG emulator and run tests in it.

usage: host.py [--build DIR] [--console] HOST [TEST [ARGUMENT...]]
HOST is a section of the file hosts beside this one; TEST replaces the test named there:
    host.py x86_64 python3 /cases.py linux/pc
x86_64-machine has this machine's files, and runs what this machine does:
    host.py x86_64-machine contrib/guest-memfd/guest-memfd-host-check
With --console the host's shell is on the terminal; Ctrl-A X ends it. Else what the test
prints (TAP) goes to the standard output, and what the host says to BUILD/nested/logs.
"""

import argparse
import configparser
import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / 'scripts'))
import entry  # noqa: E402 pylint: disable=wrong-import-position
from debs import Archive, Kernel  # noqa: E402 pylint: disable=wrong-import-position
from image import Image  # noqa: E402 pylint: disable=wrong-import-position
SUITE = 'trixie-backports'
# Seconds until the test has to begin: some sixty times what it takes on a machine with other work
BOOT_LIMIT = 600

# What the emulated machines differ in
EMULATED = {
    'x86_64': {
        'machine': ['-machine', 'q35', '-cpu', 'qemu64,+svm,+npt'],
        'parameters': 'console=ttyS0 intel_iommu=on', 'tty': 'ttyS1',
        'modules': ['kvm-amd', 'tun', 'vhost_net', 'vfio_iommu_type1', 'vfio-pci'],
        'firmware': ['bios.bin', 'bios-256k.bin', 'kvmvapic.bin', 'linuxboot_dma.bin',
                     'linuxboot.bin', 'OVMF_CODE_4M.fd', 'OVMF_CODE_4M.secboot.fd',
                     'OVMF_VARS_4M.fd'],
    },
    'aarch64': {
        'machine': ['-machine', 'virt,virtualization=on,gic-version=3', '-cpu', 'cortex-a76'],
        'parameters': 'console=ttyAMA0', 'tty': 'ttyAMA1',
        'modules': [],
        'firmware': ['QEMU_EFI.fd', 'efi-virtio.rom'],
    },
}
TOP = HERE.parents[1]
DEMO = TOP / 'scripts/demo.py'
CONSOLE = TOP / 'tests/guest-memfd'
CONTRIB = [TOP / 'contrib/guest-memfd' / name for name in ('guest-memfd-host-check',
                                                           'guest-memfd-top')]
PROGRAMS = ['qemu-system-{}', 'qemu-img', 'tests/qtest/guest-memfd-*-test',
            'tests/qtest/guest-memfd-test', 'tests/qtest/migration-test',
            'tests/guest-memfd/libguest-memfd-fault.so']
# Makes QEMU's own tests run on such RAM
ON_GUEST_MEMFD = TOP / 'tests/qtest/on-guest-memfd'
GUEST_MODULES = ['virtio_balloon', 'virtio_mem']


def shared(path, tag):
    """Options for a directory of this machine that the host can read, and may not write to."""
    return ['-virtfs', f'local,path={path},mount_tag={tag},readonly=on,security_model=none,'
            'multidevs=remap']


class Host:
    """An emulated machine: its kernel, and an initramfs with all that the tests need."""
    more_modules = []

    def __init__(self, build, name, section, log=None):
        self.build = build
        self.name = name
        self.arch = name.partition('-')[0]
        self.limit = section.getint('limit')
        self.options = section.get('options', '').split()
        self.variables = {}
        self.emulated = EMULATED[self.arch]
        self.kernel = Kernel(Archive(build, SUITE, self.arch), section['kernel'],
                             section.get('flavour'), section.getboolean('modules', True))
        self.cross = self.arch != os.uname().machine
        self.root = build / f'nested/sysroot-{self.arch}' if self.cross else Path('/')
        self.qemu = build / (f'qemu-{self.arch}' if self.cross else 'qemu')
        self.log = build / 'nested/logs' / f'{log or name}.log'
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.initrd = build / 'nested/images' / f'{name}.cpio'

    def make_image(self):
        image = Image(self.arch, self.root)
        archive = Archive(self.build, SUITE, self.arch)
        busybox = archive.unpack(self.build / f'nested/busybox-{self.arch}', 'busybox-static')
        image.add('bin/busybox', next(busybox.glob('**/bin/busybox')), 0o755)
        image.add('init', HERE / 'init', 0o755)
        self.add_modules(image, self.emulated['modules'] + self.more_modules)
        self.add_files(image)
        self.initrd.parent.mkdir(exist_ok=True)
        # Another host may be reading the one that is there
        new = self.initrd.with_suffix('.new')
        image.write(new)
        new.replace(self.initrd)

    def add_modules(self, image, names):
        for number, (name, content) in enumerate(self.kernel.modules(names).items()):
            image.add(f'modules/{number:02}-{name}.ko', content)

    def add_files(self, image):
        image.add('cases.py', HERE / 'cases.py', 0o755)
        image.python(HERE / 'cases.py', HERE, CONSOLE, self.build / 'src/qemu/python')
        for script in *CONTRIB, DEMO:
            image.add(str(script.relative_to(TOP)), script, 0o755)
            image.python(script, script.parent, CONSOLE)
        for pattern in PROGRAMS:
            for program in self.qemu.glob(pattern.format(self.arch)):
                image.program(f'qemu/{program.relative_to(self.qemu)}', program)
        wrapper = f'qemu-system-{self.arch}'
        image.add(f'qemu/on-guest-memfd/{wrapper}', ON_GUEST_MEMFD / wrapper, 0o755)
        payload = f'tests/guest-memfd/payload-{self.arch}.bin'
        image.add(f'qemu/{payload}', self.qemu / payload)
        native = self.build / 'qemu'
        for where, _, files in os.walk(native / 'qemu-bundle', followlinks=True):
            for file in set(files) & set(self.emulated['firmware']):
                path = Path(where, file)
                image.add(f'qemu/{path.relative_to(native)}', path)
        self.make_guest(image)

    def make_guest(self, image):
        """The Linux guest of the tests: the host's kernel, and a single program."""
        cc = ['gcc']
        if self.cross:
            cc = [f'{self.arch}-linux-gnu-gcc', f'--sysroot={self.root}']
        init = self.build / f'nested/guest-{self.arch}'
        source = HERE / 'guest/init.c'
        subprocess.run([*cc, '-O2', '-Wall', '-static', '-pthread', '-I',
                        HERE.parent / 'guest-memfd', source, '-o', init], check=True)
        guest = Image(self.arch, self.root)
        guest.add('init', init, 0o755)
        if self.kernel.modular:
            self.add_modules(guest, GUEST_MODULES)
        initrd = init.with_suffix('.cpio')
        guest.write(initrd)
        image.add('guest/initrd', initrd)
        image.add('guest/vmlinuz', self.kernel.image)

    def command(self, *args, **variables):
        append = f'{self.emulated["parameters"]} panic=-1 rdinit=/init'
        for name, value in {**self.variables, **variables}.items():
            append += f' {name}="{value}"'
        # Not one with sanitizers, which is slow enough in the host
        build = self.build.with_name(self.build.name.removesuffix('-sanitize'))
        return [build / f'bin/qemu-system-{self.arch}', *self.emulated['machine'],
                '-accel', 'tcg,thread=multi', '-smp', '2', '-m', '2G', *self.options,
                '-display', 'none', '-nodefaults', '-no-reboot', '-kernel', self.kernel.image,
                '-initrd', self.initrd, '-append', append, *args]

    def console(self):
        return subprocess.run(self.command('-serial', 'mon:stdio'), check=False).returncode

    def run(self, test):
        """Relay the test's output; returns whether it began, and whether all is well."""
        command = self.command('-serial', f'file:{self.log}', '-serial', 'stdio',
                               TEST=test, TTY=self.emulated['tty'])
        begun, status = False, None
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              text=True, errors='replace') as qemu:
            timer = threading.Timer(self.limit, qemu.kill)
            boot = threading.Timer(min(self.limit, BOOT_LIMIT), qemu.kill)
            timer.start()
            boot.start()
            for line in qemu.stdout:
                boot.cancel()
                begun = True
                if line.startswith('# exit status '):
                    status = int(line.split()[-1])
                print(line.rstrip(), flush=True)
            qemu.wait()
            timed_out = not timer.is_alive()
            timer.cancel()
            boot.cancel()
        if timed_out:
            print(f'# the host was still running after {self.limit} s')
        elif status is None:
            print('# the host ended early')
        return begun, status == 0

    def run_well(self, test):
        """Run it, and show the end of the host's log unless all is well."""
        begun, good = self.run(test)
        if not begun:
            # Kernels under emulation panic or hang once in a while, before they have done anything
            print('# trying again', flush=True)
            begun, good = self.run(test)
        if not good:
            for line in self.log.read_text(errors='replace').splitlines()[-40:]:
                print('#', line)
            print(f'# all that the host said is in {self.log}')
        return good


class MachineHost(Host):
    """One with this machine's files, which it can change for itself alone."""
    more_modules = ['9pnet_virtio', '9p', 'overlay']

    def __init__(self, build, name, section, log=None, files=None):
        """@files: another root file system; this repository is mounted there at the same path"""
        super().__init__(build, name, section, log)
        self.options += shared(files or '/', 'machine')
        self.variables['MACHINE'] = 'yes'
        self.place = TOP if files else os.getcwd()
        if files:
            self.options += shared(TOP, 'repository')
            self.variables['REPOSITORY'] = TOP

    def add_files(self, image):
        """All that it needs is there."""

    def run_well(self, test):
        """Run it in this directory and environment; with other files, in the repository."""
        variables = ' '.join(f'{name}={shlex.quote(value)}'
                             for name, value in os.environ.items() if name.isidentifier())
        with tempfile.NamedTemporaryFile('w', dir=self.log.parent, suffix='.sh') as script:
            script.write('test -c /dev/kvm || { echo "Bail out! no KVM in the host"; exit 1; }\n'
                         f'cd {shlex.quote(str(self.place))} || exit\n'
                         f'exec env -i {variables} sh -c {shlex.quote(test)}\n')
            script.flush()
            # By its path, since the shell of the host's first process has an own idea of sh
            return super().run_well(f'/bin/sh {script.name}')


class PackagesHost(MachineHost):
    """One with the files of packages."""
    more_modules = [*MachineHost.more_modules, 'tun']

    def __init__(self, build, name, section, log=None, debs=()):
        """@debs: files of further packages"""
        suite = section.get('suite') or platform.freedesktop_os_release()['VERSION_CODENAME']
        self.files = Archive(build, suite, name.partition('-')[0]).unpack(
            build / f'nested/root-{name}', *section['packages'].split(), *map(str, debs),
            depends=True)
        # What base-files and base-passwd would do if they were configured
        run = self.files / 'var/run'
        if not run.is_symlink():
            shutil.rmtree(run, ignore_errors=True)
            run.symlink_to('/run')
        for file in 'passwd', 'group':
            shutil.copy(self.files / f'usr/share/base-passwd/{file}.master',
                        self.files / 'etc' / file)
        super().__init__(build, name, section, log, self.files)


KINDS = {None: Host, 'machine': MachineHost, 'packages': PackagesHost}


def prepare(build, name, **kwargs):
    """The host of that name, ready to run."""
    hosts = configparser.ConfigParser()
    hosts.read(HERE / 'hosts')
    if name not in hosts:
        sys.exit(f'error: no host {name}; there are: {", ".join(hosts.sections())}')
    (build / 'nested').mkdir(exist_ok=True)
    with open(build / 'nested/lock', 'w', encoding='ascii') as lock:
        # Hosts share packages, and Meson starts several at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        host = KINDS[hosts[name].get('files')](build, name, hosts[name], **kwargs)
        host.make_image()
    return host, hosts[name].get('test', '').replace('{build}', str(build))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--build', type=Path, default=HERE.parents[1] / 'build')
    parser.add_argument('--console', action='store_true', help="the host's shell on the terminal")
    parser.add_argument('host')
    parser.add_argument('test', nargs=argparse.REMAINDER)
    args = parser.parse_args()

    host, test = prepare(args.build.resolve(), args.host)
    if args.console:
        sys.exit(host.console())
    test = ' '.join(args.test) or test
    if not test:
        sys.exit(f'error: which test is {args.host} to run?')
    sys.exit(0 if host.run_well(test) else 1)


if __name__ == '__main__':
    entry.run(main)
