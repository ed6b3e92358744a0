# SPDX-License-Identifier: GPL-2.0-or-later
"""What takes memory from a Linux guest that runs, and gives it: devices, and bad luck."""

import ctypes
import mmap
import os
import signal
import tempfile
import time
from pathlib import Path

from vm import FIRMWARE_RESETS, MIB, check, test_memory

# A memory block of Linux, which comes and goes as a whole
BLOCK = 128 * MIB
# On the command line of a VM for `dimm` and `poison`, and for all
BASICS = ['-m', 'slots=1,maxmem=1G', '-trace', 'kvm_guest_memfd_fault']
BALLOON = ['-device', 'virtio-balloon-pci']
DEVICES = [*BASICS, *BALLOON,
           '-object', f'memory-backend-guest-memfd,id=vmem,size={BLOCK}',
           '-device', 'virtio-mem-pci,id=virtio-mem,memdev=vmem,requested-size=0']


def wait_until(condition, what):
    end = time.monotonic() + 300
    while not condition():
        check(time.monotonic() < end, 'not within 300 s:', what)
        time.sleep(0.2)


class HostMemory:
    """What guest_memfds hold of the host's memory: little else here cannot be evicted."""

    def __init__(self):
        self.before = self.now()

    @staticmethod
    def now():
        for line in Path('/proc/meminfo').read_text(encoding='ascii').splitlines():
            if line.startswith('Unevictable:'):
                return int(line.split()[1]) << 10
        raise AssertionError('no Unevictable in /proc/meminfo')

    def check_risen(self, size):
        """Nearly so much has been added; the rest was there, or is not in use yet."""
        check(self.now() - self.before > size * 3 / 4, 'of', size, 'the host has given',
              self.now() - self.before)
        self.before = self.now()

    def wait_fallen(self, size):
        wait_until(lambda: self.before - self.now() > size * 3 / 4,
                   f'{size} bytes return to the host')
        self.before = self.now()


def gmem_file(guest, size):
    """A mapping of QEMU's guest_memfd of this size, which has no name to open it by."""
    pid = guest.vm.get_pid()
    for link in Path(f'/proc/{pid}/fd').iterdir():
        if 'kvm-gmem' in os.readlink(link):
            # SYS_pidfd_getfd
            fd = ctypes.CDLL(None).syscall(438, os.pidfd_open(pid), int(link.name), 0)
            check(fd >= 0, 'pidfd_getfd')
            if os.fstat(fd).st_size == size:
                return mmap.mmap(fd, size)
            os.close(fd)
    raise AssertionError(f'QEMU has no guest_memfd of {size} bytes')


def resident(guest):
    """Bytes of RAM that the host has memory for."""
    file = gmem_file(guest, guest.ram)
    pages = (ctypes.c_ubyte * (guest.ram // mmap.PAGESIZE))()
    start = ctypes.addressof(ctypes.c_ubyte.from_buffer(file))
    check(not ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(guest.ram), pages),
          'mincore')
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def ram(guest):
    return int(dict(w.split('=') for w in guest.ask('memory').split())['ram'])


def test_added(guest, before):
    """The guest has a memory block more than before, and uses it."""
    # Linux has its own uses for some of it
    wait_until(lambda: ram(guest) > before + BLOCK * 3 / 4, 'the guest has more memory')
    guest.ask('allocate')
    check(test_memory(guest) > BLOCK + guest.ram // 3)


def balloon(guest, pinned=False):
    """Inflated and deflated again by the guest's driver. Pinned memory stays in use."""
    size = 64 * MIB
    before = ram(guest)
    test_memory(guest)
    guest.ask('free')
    host = HostMemory()
    guest.vm.cmd('balloon', value=guest.ram - size)
    wait_until(lambda: guest.vm.cmd('query-balloon')['actual'] == guest.ram - size, 'inflated')
    if pinned:
        check(resident(guest) == guest.ram, 'of', guest.ram, 'bytes there are', resident(guest))
    else:
        host.wait_fallen(size)
    check(ram(guest) <= before - size, 'the guest still has', ram(guest), 'of', before)
    guest.vm.cmd('balloon', value=guest.ram)
    wait_until(lambda: guest.vm.cmd('query-balloon')['actual'] == guest.ram, 'deflated')
    guest.ask('allocate')
    test_memory(guest)
    if not pinned:
        host.check_risen(size)
    guest.check_bound()


def virtio_mem(guest):
    """Grown and shrunk again by the guest's driver."""
    def resize(size):
        guest.vm.cmd('qom-set', path='virtio-mem', property='requested-size', value=size)
        wait_until(lambda: guest.vm.cmd('qom-get', path='virtio-mem', property='size') == size,
                   f'virtio-mem has {size} bytes')

    before = ram(guest)
    host = HostMemory()
    resize(BLOCK)
    test_added(guest, before)
    host.check_risen(BLOCK)
    guest.check_bound('vmem', BLOCK)
    guest.ask('free')
    resize(0)
    host.wait_fallen(BLOCK)
    guest.ask('allocate')
    test_memory(guest)
    guest.check_bound()


def dimm(guest):
    """Plugged, used by the guest, and removed again with its consent."""
    before = ram(guest)
    host = HostMemory()
    guest.vm.cmd('object-add', qom_type='memory-backend-guest-memfd', id='ram1', size=BLOCK)
    guest.vm.cmd('device_add', driver='pc-dimm', id='dimm', memdev='ram1')
    test_added(guest, before)
    host.check_risen(BLOCK)
    guest.check_bound('ram1', BLOCK)
    guest.ask('free')
    guest.vm.cmd('device_del', id='dimm')
    check(guest.vm.event_wait('DEVICE_DELETED', 300.0, {'data': {'device': 'dimm'}}),
          'the guest has not let the DIMM go')
    guest.vm.cmd('object-del', id='ram1')
    host.wait_fallen(BLOCK)
    guest.ask('allocate')
    test_memory(guest)
    guest.check_bound()


def lose_page(guest, gpa):
    """To the kernel, the memory that holds this page of RAM is broken from now on."""
    slot, = (s for s in guest.slots() if s['state'] == 'bound'
             and s['gpa'] <= gpa < s['gpa'] + s['size'])
    file = gmem_file(guest, guest.ram)
    child = os.fork()
    if not child:
        # 100 is MADV_HWPOISON. It kills the process that says so, too.
        file.madvise(100, gpa - slot['gpa'] + slot['offset'], mmap.PAGESIZE)
        os._exit(1)
    file.close()
    status = os.waitpid(child, 0)[1]
    check(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, 'status', status)


def poison(guest):
    """The host loses a page: the guest's user of it gets to know, and all others go on."""
    test_memory(guest)
    gpa = int(guest.ask('where'), 0)
    lose_page(guest, gpa)
    guest.ask('poisoned')
    check(f'kvm_guest_memfd_fault ram0 gpa {gpa:#x}: -133' in guest.log(),
          'no fault with EHWPOISON at', hex(gpa))
    check(guest.vm.cmd('query-status')['status'] == 'running', 'not running')
    test_memory(guest)
    guest.check_bound()
    # A reset machine has a good page there. Who reads a bad one is killed.
    guest.vm.cmd('stop')
    guest.resets = FIRMWARE_RESETS
    guest.vm.cmd('system_reset')
    check(guest.vm.event_wait('RESET', 300.0, {'data': {'guest': False}}), 'not reset')
    with tempfile.NamedTemporaryFile() as out:
        guest.vm.cmd('pmemsave', val=gpa, size=4096, filename=out.name)
        check(not any(Path(out.name).read_bytes()), 'the page is not a fresh one')
    guest.vm.cmd('cont')


def mapped(guest):
    """Bytes of guest_memfds that QEMU's own page tables have."""
    text = Path(f'/proc/{guest.vm.get_pid()}/smaps').read_text(encoding='ascii')
    file, size = False, 0
    for line in text.splitlines():
        words = line.split()
        if not words[0].endswith(':'):
            file = 'kvm-gmem' in line
        elif file and words[0] == 'Rss:':
            size += int(words[1]) << 10
    return size


def faults(guest):
    """Page faults that KVM has mended, of all vCPUs."""
    results = guest.vm.cmd('query-stats', target='vcpu',
                           providers=[{'provider': 'kvm', 'names': ['pf_fixed']}])
    return sum(stat['value'] for result in results for stat in result['stats'])


def test_faults(guest, few):
    """The guest touches all of its RAM: nearly all, or nearly none of it makes KVM fault."""
    before = faults(guest)
    pages = test_memory(guest) // mmap.PAGESIZE
    count = faults(guest) - before
    print(f'# {count} faults for {pages} pages', flush=True)
    check(count <= pages * 0.02 if few else count >= pages * 0.9,
          count, 'faults for', pages, 'pages')
