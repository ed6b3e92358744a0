# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of RAM that are measured."""

from dataclasses import dataclass
from pathlib import Path

THP = Path('/sys/kernel/mm/transparent_hugepage/enabled')
HUGE = Path('/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages')


@dataclass(frozen=True)
class Backend:
    """options: -object without id and size; huge: whether transparent huge pages may be used"""
    name: str
    what: str
    options: str
    huge: bool = True
    debian: bool = False

    @property
    def gmem(self):
        return 'guest-memfd' in self.options

    def object(self, ident, size, prealloc=False, threads=0):
        text = f'{self.options},id={ident},size={size}'
        if prealloc:
            text += ',prealloc=on' + (f',prealloc-threads={threads}' if threads else '')
        return text

    def properties(self, ident, size, prealloc=False, threads=0):
        """The same for QMP's object-add."""
        kind, *words = self.object(ident, size).split(',')
        found = {'qom-type': kind}
        for name, value in (word.split('=') for word in words):
            found[name] = int(value) if value.isdigit() else {'on': True}.get(value, value)
        if 'kvm-bind' in found:
            found['kvm-bind'] = 'off'
        if prealloc:
            found |= {'prealloc': True, 'prealloc-threads': threads or 1}
        return found

    def why_not(self, size):
        """Why this host does not have such RAM; None if it does."""
        if 'hugetlb' in self.options:
            free = int(HUGE.read_text(encoding='ascii')) << 21 if HUGE.exists() else 0
            # Both sides of a migration
            if free < 2 * size:
                return f'{2 * size >> 21} free huge pages are needed (sysctl vm.nr_hugepages)'
        if self.name == 'ram-thp' and (not THP.exists() or '[never]' in THP.read_text()):
            return f'transparent huge pages are off ({THP})'
        return None


BACKENDS = {b.name: b for b in (
    Backend('guest-memfd', 'guest_memfd, bound to memslots', 'memory-backend-guest-memfd'),
    Backend('mapped', 'guest_memfd with kvm-bind=off', 'memory-backend-guest-memfd,kvm-bind=off'),
    Backend('memfd', 'memfd, 4 KiB pages: what the ratios are to', 'memory-backend-memfd'),
    Backend('memfd-huge', 'memfd with hugetlb pages', 'memory-backend-memfd,hugetlb=on'),
    Backend('ram', 'anonymous memory, 4 KiB pages', 'memory-backend-ram', huge=False),
    Backend('ram-thp', 'anonymous memory, transparent huge pages', 'memory-backend-ram'),
    Backend('debian', "memfd, with the QEMU of this machine's Debian", 'memory-backend-memfd',
            debian=True),
)}
REFERENCE = 'memfd'
BARE = 'bare'
