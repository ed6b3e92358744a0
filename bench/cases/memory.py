# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's memory beside that of the guest."""

from ..goals import Goal
from ..host import process
from . import Metric, case

METRICS = {
    'page-tables': Metric('B', "QEMU's page tables (VmPTE)", counted=True),
    'rss': Metric('B', 'added to VmRSS', counted=True),
    'kvm-tables': Metric('B', "KVM's page tables for the guest", counted=True),
    'charge': Metric('B', "charged to QEMU's memory cgroup beyond the guest's pages",
                     counted=True),
}
GOALS = (Goal('page-tables', 0.05, 'memfd', plus=200 << 10),)


HEAP = ('QEMU may keep up to 4 MiB of heap that it has freed, as its RCU thread happens to run '
        '(malloc_trim()): of the heap, 4.4 to 8.4 MiB were resident.')


def memory(name, what, prealloc, goals):
    @case(f'memory/{name}', what, METRICS, sizes=(1, 4), goals=goals, reasons={'charge': HEAP},
          backends=('guest-memfd', 'mapped', 'memfd', 'memfd-huge', 'ram', 'ram-thp'))
    def measure(run):
        # Before, the preallocated memory is not there yet
        with run.guest(group=run.group(), size=64 << 20) as empty:
            rss = process(empty.pid)['VmRSS']
            charge = empty.group.charge()
        with run.guest(group=run.group(), prealloc=prealloc) as guest:
            pages = int(guest.ask('touch all')['pages'], 0)
            now = process(guest.pid)
            return {'page-tables': now['VmPTE'], 'rss': max(now['VmRSS'] - rss, 0),
                    'kvm-tables': guest.group.kvm_tables(),
                    'charge': max(guest.group.charge() - charge - pages * 4096, 0)}


memory('touched', 'when the guest alone has touched all of its RAM', False, GOALS)
# Where KVM shadow-pages, QEMU fills its page tables on purpose
memory('prealloc', 'the same with preallocated RAM', True, ())
