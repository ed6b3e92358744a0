#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user does with the packages, on a system that has nothing else of ours.

usage: guest.py tcg|kvm|libvirt|apparmor|selinux
The firmware has to find the guest, which says a word on the serial port: on x86 a boot sector,
on arm64 the Linux kernel that is in /tmp/esp, a file system as UEFI wants it. Prints what it
finds, and exits with 0 if that is as it should be.
"""

import json
import os
import re
import select
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

X86 = os.uname().machine == 'x86_64'
QEMU = f'qemu-system-{os.uname().machine}-guest-memfd'
WORD = b'guest has booted' if X86 else b'Booting Linux'
EXAMPLES = Path('/usr/share/doc/qemu-guest-memfd-doc/examples/libvirt')
RULES = Path('/etc/apparmor.d/abstractions/libvirt-qemu.d/qemu-guest-memfd')
INSTALLED = Path('/usr/local/bin/qemu-system-x86_64')
MANUAL_RULES = Path('/tmp/rules')
IMAGE = '/var/lib/libvirt/images/guest.qcow2'
PRINTK_RATELIMIT = Path('/proc/sys/kernel/printk_ratelimit')    # a message may be one too many
SIZE = 1 << 30
HIDDEN = 384 << 10 if X86 else 0    # of RAM, behind VGA and ROMs


def boot_sector():
    """Says WORD on the first serial port, and ends QEMU if there is isa-debug-exit."""
    code = bytes.fromhex('31c0 8ed8'            # ds = 0
                         'be 1a7c'              # si = address of the word
                         'ac 84c0 7406'         # next byte, until a zero
                         'ba f803 ee ebf5'      # to the serial port
                         'ba 0105 ee'           # isa-debug-exit
                         'f4 ebfd')             # halt
    return (code.ljust(0x1a, b'\x90') + WORD + b'\r\n\0').ljust(510, b'\0') + b'\x55\xaa'


def check(condition, message):
    if not condition:
        sys.exit(f'error: {message}')


def read_until(fd, word, seconds=600):
    """What comes from a file until the word is in it."""
    said, deadline = b'', time.monotonic() + seconds
    while word not in said:
        ready = select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]
        part = os.read(fd, 4096) if ready else b''
        check(part, f'no "{word.decode()}" from the guest, but {said!r}')
        said += part
    return said


def wait_for(condition, what, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < deadline, f'{what}: not within {seconds} s')
        time.sleep(0.1)


def run(*command):
    result = subprocess.run([str(c) for c in command], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, check=False)
    check(result.returncode == 0, f'{command}: {result.stdout}')
    print(f'# {" ".join(str(c) for c in command)}\n{result.stdout.strip()}', flush=True)
    return result.stdout


def check_bound(backends):
    bound = sum(b['bound'] for b in backends)
    print(f'bound: {bound} bytes of {SIZE}', flush=True)
    check(SIZE - HIDDEN <= bound <= SIZE, f'that is not all of RAM: {backends}')


def tcg(scratch):
    """With the devices that a PC has by default: all their firmware must be there."""
    command = [QEMU, '-accel', 'tcg', '-display', 'none', '-serial', 'stdio', '-no-reboot',
               '-device', 'isa-debug-exit,iobase=0x501,iosize=1', '-drive',
               f'file={scratch}/disk,format=raw,if=virtio']
    for more in (['-machine', 'q35'], ['-machine', 'pc', '-nic', 'user,model=virtio-net-pci'],
                 ['-k', 'de', '-device', 'virtio-vga', '-vga', 'none', '-vnc', 'none']):
        with subprocess.Popen(command + more, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT) as qemu:
            said = read_until(qemu.stdout.fileno(), WORD)
            check(qemu.wait(60) == 1, f'exit status {qemu.returncode}')
        # QEMU does without some of its ROMs.
        check(b'rror' not in said, said.decode(errors='replace'))
        print(f'{" ".join(more)}: {WORD.decode()}', flush=True)


class Monitor:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        wait_for(lambda: not self.socket.connect_ex(str(path)), 'its monitor')
        self.file = self.socket.makefile('rw')
        self.file.readline()
        self.ask('qmp_capabilities')

    def ask(self, command, **arguments):
        self.file.write(json.dumps({'execute': command, 'arguments': arguments}) + '\n')
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if 'event' not in answer:
                check('return' in answer, answer)
                return answer['return']


def migrate(monitor, command, scratch):
    """To a second QEMU, where RAM is bound as it was."""
    there = [word.replace(f'{scratch}/', f'{scratch}/there-') for word in command]
    there[there.index('-drive') + 1] = command[command.index('-drive') + 1]
    with subprocess.Popen([*there, '-incoming', f'unix:{scratch}/migration'],
                          stdout=subprocess.DEVNULL) as qemu:
        try:
            other = Monitor(scratch / 'there-mine')
            monitor.ask('migrate', uri=f'unix:{scratch}/migration')
            wait_for(lambda: other.ask('query-status')['status'] == 'running'
                     or monitor.ask('query-migrate')['status'] == 'failed', 'the guest there')
            wait_for(lambda: {s['state'] for b in other.ask('query-guest-memfd')
                              for s in b['slots']}.isdisjoint(('switching', 'dirty-log')),
                     'its memory is bound')
            check(other.ask('query-status')['status'] == 'running', monitor.ask('query-migrate'))
            check_bound(other.ask('query-guest-memfd'))
            print('migrated', flush=True)
        finally:
            qemu.kill()


def kvm(scratch):
    run('guest-memfd-host-check')
    command = [QEMU, '-accel', 'kvm', '-cpu', 'kvm64', '-machine', 'q35,guest-memfd=on', '-m', '1G',
               '-display', 'none', '-serial', 'stdio', '-drive',
               f'file={scratch}/disk,format=raw,if=virtio']
    for name in 'mine', 'top':
        command += ['-qmp', f'unix:{scratch}/{name},server=on,wait=off']
    with subprocess.Popen(command, stdout=subprocess.PIPE) as qemu:
        try:
            read_until(qemu.stdout.fileno(), WORD)
            monitor = Monitor(scratch / 'mine')
            check_bound(monitor.ask('query-guest-memfd'))
            run('guest-memfd-top', '--once', scratch / 'top')
            migrate(monitor, command, scratch)
            monitor.ask('quit')
            check(qemu.wait(60) == 0, f'exit status {qemu.returncode}')
        finally:
            qemu.kill()
    for line in Path('/tmp/commands').read_text().splitlines():
        as_shown(line)


def as_shown(line):
    """A command from the manual; what it shows in the monitor is the manual's, too."""
    command = [QEMU, *shlex.split(line)[1:], '-S', '-display', 'none', '-monitor', 'stdio']
    qemu = subprocess.run(command, input='info guest-memfd\nquit\n', text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    found = re.search(r'^\S+: (\d+) bytes, \d+ allocated, (\d+) bound', qemu.stdout, re.MULTILINE)
    check(qemu.returncode == 0 and found and int(found[1]) - int(found[2]) <= HIDDEN,
          f'{line}: {qemu.stdout}')
    print(f'{line}: {found[0]}', flush=True)


def libvirt(scratch):
    """The documented domain, as the package has it, with stock libvirt."""
    # This system has neither udev nor control groups.
    start_libvirt(scratch, 'cgroup_controllers = []\nnamespaces = []\n'
                  'user = "root"\ngroup = "root"\nsecurity_driver = "none"\n')
    run_domain()


def start_libvirt(scratch, conf):
    """Its daemons, a disk to boot from, and the definition of the domain."""
    config = Path('/etc/libvirt/qemu.conf')
    config.write_text(config.read_text() + conf)
    Path('/run/libvirt').mkdir(exist_ok=True)
    Path(IMAGE).parent.mkdir(parents=True, exist_ok=True)
    disk = scratch / 'disk' if X86 else 'fat:/tmp/esp'
    run('qemu-img-guest-memfd', 'convert', '-O', 'qcow2', disk, IMAGE)
    for daemon in 'virtlogd', 'libvirtd':
        run(daemon, '-d')
    define(scratch)


def define(scratch, edit=lambda domain: None):
    domain = ET.parse(EXAMPLES / ('machine.xml' if X86 else 'arm64.xml'))
    edit(domain)
    if X86:
        # Some KVMs offer this register of the host's processor, and do not let it be set
        ET.SubElement(domain.find('cpu'), 'feature', policy='disable', name='arch-capabilities')
    domain.write(scratch / 'domain.xml')
    virsh('define', scratch / 'domain.xml')


def virsh(*words):
    return run('virsh', '-q', '-c', 'qemu:///system', *words)


def run_domain(look=lambda: None):
    """Boot the guest, see that its RAM is bound, and then what @look does."""
    virsh('start', '--paused', 'guest')
    tty = os.open(virsh('ttyconsole', 'guest').strip(), os.O_RDWR | os.O_NOCTTY)
    virsh('resume', 'guest')
    read_until(tty, WORD)
    answer = virsh('qemu-monitor-command', 'guest', '{"execute": "query-guest-memfd"}')
    check_bound(json.loads(answer)['return'])
    run('guest-memfd-top', '--once', '--libvirt')
    look()
    virsh('destroy', 'guest')


def apparmor(scratch):
    """With libvirt's profiles, which the kernel enforces. Only on a system of one's own."""
    run('mount', '-t', 'securityfs', 'none', '/sys/kernel/security')
    PRINTK_RATELIMIT.write_text('0')
    load_profiles()
    shutil.chown('/dev/kvm', 'libvirt-qemu')
    start_libvirt(scratch, 'cgroup_controllers = []\nsecurity_driver = "apparmor"\n')

    def look():
        pid = Path('/run/libvirt/qemu/guest.pid').read_text()
        confined = Path(f'/proc/{pid}/attr/current').read_text()
        print(f'AppArmor: {confined}', flush=True)
        check(re.fullmatch(r'libvirt-[-0-9a-f]+ \(enforce\)\n', confined), 'not confined')
    check_not_denied(look)
    # Without our rules it is refused: so it was they who admitted it
    RULES.rename(scratch / 'rules')
    refused = subprocess.run(['virsh', '-q', '-c', 'qemu:///system', 'start', 'guest'], text=True,
                             stderr=subprocess.PIPE, check=False)
    check(refused.returncode and 'Permission denied' in refused.stderr, refused)
    print(f'without our rules: {refused.stderr.strip()}', flush=True)
    if MANUAL_RULES.exists():
        manual_rules()
        virsh('undefine', 'guest')
        define(scratch, lambda domain: setattr(domain.find('devices/emulator'), 'text',
                                               str(INSTALLED)))
    else:
        shutil.copy(scratch / 'rules', RULES)
    check_not_denied(look)


def check_not_denied(look):
    """Run the domain: of all that it does AppArmor denies nothing."""
    run('dmesg', '--clear')
    run_domain(look)
    denied = [line for line in run('dmesg').splitlines() if 'apparmor="DENIED"' in line]
    check(not denied, '\n'.join(denied))


def manual_rules():
    """Add what the manual says for programs that `make install` has installed."""
    for name, rules in json.loads(MANUAL_RULES.read_text()).items():
        file = Path('/etc/apparmor.d/local', name)
        file.parent.mkdir(exist_ok=True)
        with file.open('a') as additions:
            additions.write(rules)
    load_profiles()


def load_profiles():
    for profile in 'usr.sbin.libvirtd', 'usr.lib.libvirt.virt-aa-helper':
        run('apparmor_parser', '--replace', '--skip-cache', f'/etc/apparmor.d/{profile}')


def selinux(scratch):
    """What Debian's policy would deny a guest of its guest_memfd: nothing with the manual's module.

    Files have no labels here, so nothing is enforced: SELinux says what it would deny, once
    for each permission until its policy is loaded again. Only on a system of one's own.
    """
    run('mount', '-t', 'selinuxfs', 'none', '/sys/fs/selinux')
    PRINTK_RATELIMIT.write_text('0')
    run('qemu-img-guest-memfd', 'create', '-q', '-f', 'qcow2', scratch / 'disk.qcow2', '64M')
    found = []
    for module in (), ('semodule', '--noreload', '-i', '/tmp/guest-memfd.cil'):
        if module:
            run(*module)
        run('load_policy')
        run('dmesg', '--clear')
        said = subprocess.run(
            ['runcon', 'system_u:system_r:svirt_t:s0:c1,c2', QEMU, '-accel', 'kvm', '-cpu', 'kvm64',
             '-machine', 'q35,guest-memfd=on,memory-backend=ram0', '-m', '64M', '-object',
             'memory-backend-memfd,id=ram0,size=64M,prealloc=on', '-display', 'none',
             '-drive', f'file={scratch}/disk.qcow2,if=virtio', '-monitor', 'stdio'],
            # loadvm gives memory back
            input='info guest-memfd\nsavevm a\nloadvm a\n'
            'migrate "exec:cat >/dev/null"\nquit\n', text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        check(said.returncode == 0 and ': bound ' in said.stdout, said.stdout)
        denied = [line for line in run('dmesg').splitlines() if 'avc:  denied' in line]
        check(denied, 'nothing is denied at all: does SELinux run?')
        found.append([line for line in denied if 'tclass=anon_inode' in line])
    # The label of programs from `make install`, by the manual's commands
    INSTALLED.parent.mkdir(exist_ok=True)
    shutil.copy(shutil.which(QEMU), INSTALLED)
    for line in Path('/tmp/commands').read_text().splitlines():
        run('sh', '-ec', line)
    check(':qemu_exec_t:' in run('stat', '--format', '%C', INSTALLED), 'another label')
    check(found[0], 'nothing is denied without the module')
    check(not found[1], '\n'.join(found[1]))


def main():
    jobs = {job.__name__: job for job in (tcg, kvm, libvirt, apparmor, selinux)}
    if len(sys.argv) != 2 or sys.argv[1] not in jobs:
        sys.exit(__doc__.split('\n\n')[1])
    with tempfile.TemporaryDirectory() as scratch:
        # Of a size that also an image format takes
        (Path(scratch) / 'disk').write_bytes(boot_sector().ljust(1 << 20, b'\0'))
        jobs[sys.argv[1]](Path(scratch))


if __name__ == '__main__':
    main()
