#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot a KVM host under our own TCG emulator and run tests in it.

usage: host.py [--build DIR] [--console] HOST [TEST [ARGUMENT...]]
HOST is a section of the file hosts beside this one; TEST replaces the test named there:
    host.py x86_64 python3 /cases.py linux/pc
With --console the host's shell is on the terminal; Ctrl-A X ends it. Else what the test
prints (TAP) goes to the standard output, and what the host says to BUILD/nested/logs.
"""

import argparse
import configparser
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / 'scripts'))
from debs import Archive, Kernel  # noqa: E402 pylint: disable=wrong-import-position
from image import Image  # noqa: E402 pylint: disable=wrong-import-position
SUITE = 'trixie-backports'

# What the emulated machines differ in
EMULATED = {
    'x86_64': {
        'machine': ['-machine', 'q35', '-cpu', 'qemu64,+svm,+npt'],
        'parameters': 'console=ttyS0 intel_iommu=on', 'tty': 'ttyS1',
        'modules': ['irqbypass', 'kvm', 'kvm-amd',
                    'tun', 'tap', 'vhost_iotlb', 'vhost', 'vhost_net',
                    'vfio', 'vfio_iommu_type1', 'vfio-pci-core', 'vfio-pci'],
        'firmware': ['bios.bin', 'bios-256k.bin', 'kvmvapic.bin', 'linuxboot_dma.bin',
                     'linuxboot.bin', 'OVMF_CODE_4M.fd', 'OVMF_CODE_4M.secboot.fd',
                     'OVMF_VARS_4M.fd'],
    },
    'aarch64': {
        'machine': ['-machine', 'virt,virtualization=on,gic-version=3', '-cpu', 'cortex-a76'],
        'parameters': 'console=ttyAMA0', 'tty': 'ttyAMA1',
        'modules': [],
        'firmware': ['QEMU_EFI.fd'],
    },
}
TOP = HERE.parents[1]
DEMO = TOP / 'scripts/demo.py'
HOST_CHECK = TOP / 'contrib/guest-memfd/guest-memfd-host-check'
PROGRAMS = ['qemu-system-{}', 'qemu-img', 'tests/qtest/guest-memfd-*-test',
            'tests/qtest/guest-memfd-test', 'tests/guest-memfd/libguest-memfd-fault.so']
GUEST_MODULES = ['virtio_balloon', 'virtio_mem']


class Host:
    def __init__(self, build, name, section):
        self.build = build
        self.name = name
        self.arch = name.partition('-')[0]
        self.limit = section.getint('limit')
        self.options = section.get('options', '').split()
        self.emulated = EMULATED[self.arch]
        self.kernel = Kernel(Archive(build, SUITE, self.arch), section['kernel'],
                             section.get('flavour'))
        self.cross = self.arch != os.uname().machine
        self.root = build / f'nested/sysroot-{self.arch}' if self.cross else Path('/')
        self.qemu = build / (f'qemu-{self.arch}' if self.cross else 'qemu')
        self.log = build / 'nested/logs' / f'{name}.log'
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.initrd = build / 'nested/images' / f'{name}.cpio'

    def make_image(self):
        """An initramfs with all that the tests need."""
        image = Image(self.arch, self.root)
        archive = Archive(self.build, SUITE, self.arch)
        busybox = archive.unpack(self.build / f'nested/busybox-{self.arch}', 'busybox-static')
        image.add('bin/busybox', next(busybox.glob('**/bin/busybox')), 0o755)
        image.add('init', HERE / 'init', 0o755)
        for number, module in enumerate(self.emulated['modules']):
            image.add(f'modules/{number:02}-{module}.ko', self.kernel.module(module))

        image.add('cases.py', HERE / 'cases.py', 0o755)
        image.python(HERE / 'cases.py', HERE, self.build / 'src/qemu/python')
        for script in HOST_CHECK, DEMO:
            image.add(str(script.relative_to(TOP)), script, 0o755)
            image.python(script)
        for pattern in PROGRAMS:
            for program in self.qemu.glob(pattern.format(self.arch)):
                image.program(f'qemu/{program.relative_to(self.qemu)}', program)
        payload = f'tests/guest-memfd/payload-{self.arch}.bin'
        image.add(f'qemu/{payload}', self.qemu / payload)
        native = self.build / 'qemu'
        for where, _, files in os.walk(native / 'qemu-bundle', followlinks=True):
            for file in set(files) & set(self.emulated['firmware']):
                path = Path(where, file)
                image.add(f'qemu/{path.relative_to(native)}', path)
        self.make_guest(image)
        self.initrd.parent.mkdir(exist_ok=True)
        image.write(self.initrd)

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
        for number, module in enumerate(GUEST_MODULES if self.kernel.modular else []):
            guest.add(f'modules/{number:02}-{module}.ko', self.kernel.module(module))
        initrd = init.with_suffix('.cpio')
        guest.write(initrd)
        image.add('guest/initrd', initrd)
        image.add('guest/vmlinuz', self.kernel.image)

    def command(self, *args, **variables):
        append = f'{self.emulated["parameters"]} panic=-1 rdinit=/init'
        for name, value in variables.items():
            append += f' {name}="{value}"'
        return [self.build / f'bin/qemu-system-{self.arch}', *self.emulated['machine'],
                *self.options, '-accel', 'tcg,thread=multi', '-smp', '2', '-m', '2G',
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
            timer.start()
            for line in qemu.stdout:
                begun = True
                if line.startswith('# exit status '):
                    status = int(line.split()[-1])
                print(line.rstrip(), flush=True)
            qemu.wait()
            timed_out = not timer.is_alive()
            timer.cancel()
        if timed_out:
            print(f'# the host was still running after {self.limit} s')
        elif status is None:
            print('# the host ended early')
        return begun, status == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--build', type=Path, default=HERE.parents[1] / 'build')
    parser.add_argument('--console', action='store_true', help="the host's shell on the terminal")
    parser.add_argument('host')
    parser.add_argument('test', nargs=argparse.REMAINDER)
    args = parser.parse_args()

    hosts = configparser.ConfigParser()
    hosts.read(HERE / 'hosts')
    if args.host not in hosts:
        sys.exit(f'error: no host {args.host}; there are: {", ".join(hosts.sections())}')
    build = args.build.resolve()
    (build / 'nested').mkdir(exist_ok=True)
    with open(build / 'nested/lock', 'w', encoding='ascii') as lock:
        # Hosts share packages, and Meson starts several at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        host = Host(build, args.host, hosts[args.host])
        host.make_image()
    if args.console:
        sys.exit(host.console())
    test = ' '.join(args.test) or hosts[args.host]['test']
    begun, good = host.run(test)
    if not begun:
        # Kernels under emulation panic once in a while before they have done anything
        print('# trying again', flush=True)
        begun, good = host.run(test)
    if not good:
        for line in host.log.read_text(errors='replace').splitlines()[-40:]:
            print('#', line)
        print(f'# all that the host said is in {host.log}')
    sys.exit(0 if good else 1)


if __name__ == '__main__':
    main()
