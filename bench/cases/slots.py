# SPDX-License-Identifier: GPL-2.0-or-later
"""Memslots that come, go and change: what that takes, and what the guest pays afterwards."""

from ..goals import TWO_DIMENSIONAL, Goal
from . import PLACEMENT, Metric, case

DIMM = 128 << 20
# ACPI's controller of DIMMs, which a guest ejects one by
SELECT, CONTROL, EJECT = 0xa00, 0xa14, 8
SLOTS = ('-m', 'slots=1,maxmem=32G')
METRICS = {
    'before': Metric('s', 'the guest writes to each page of its warm RAM'),
    'after': Metric('s', 'it does so after the change'),
    'faults': Metric('1', 'page faults for a page, after the change', counted=True,
                     optional=True),
}
# Nothing of the guest's RAM has changed
UNCHANGED = (Goal('after', 1.1, 'metric:before'), Goal('faults', plus=0.01))


def plug(guest):
    guest.vm.cmd('object-add', **guest.backend.properties('more', DIMM))
    guest.vm.cmd('device_add', driver='pc-dimm', id='dimm', memdev='more')


def unplug(guest):
    guest.vm.cmd('device_del', id='dimm')
    guest.ask(f'outb {SELECT} 0')
    guest.ask(f'outb {CONTROL} {EJECT}')
    guest.vm.event_wait('DEVICE_DELETED', 600.0, {'data': {'device': 'dimm'}})
    guest.vm.cmd('object-del', id='more')


def pam(guest):
    guest.ask('pam on')
    guest.ask('pam off')


def resets(guest):
    for _ in range(guest.env.pick(20, 2)):
        guest.ask('reset')
        guest.wait_ready()


def nothing(guest):
    """Nothing is to be done before the RAM is warm."""


def change(name, what, act, options=(), goals=UNCHANGED, prepare=nothing, archs=('x86_64',)):
    @case(f'slots/{name}', f'the guest writes to its warm RAM again: {what}', METRICS, goals=goals,
          backends=('guest-memfd', 'mapped', 'memfd'), archs=archs,
          reasons={'before': PLACEMENT, 'after': PLACEMENT})
    def measure(run):
        with run.guest(*options) as guest:
            prepare(guest)
            guest.touch()
            before = guest.touch()
            act(guest)
            after = guest.touch()
        return {'before': before.seconds, 'after': after.seconds, 'faults': after.faults}


change('pam', "after a PC's PAM was opened and closed", pam)
change('plug', 'after a DIMM was plugged', plug, SLOTS)
change('unplug', 'after a DIMM was unplugged', unplug, SLOTS, prepare=plug)
change('resets', 'after 20 resets', resets, archs=())
change('cancel', 'after a migration was cancelled', lambda guest:
       guest.start_and_cancel_migration(), archs=(),
       goals=(Goal('after', 1.5, 'metric:before'),
              Goal('faults', plus=0.02, paging=TWO_DIMENSIONAL), Goal('after', 1.0, 'memfd')))


TIMES = 250


@case('slots/many', f'memslots of a PC\'s PAM that go and come, {TIMES} times', {
    'time': Metric('s', 'for one of the times')}, archs=('x86_64',), sizes=(1,),
      goals=(Goal('time', 1.1, 'memfd'),), bare=lambda run: ('slots', 256 << 10,
                                                             run.pick(TIMES, 5)),
      bare_metric='time')
def many(run):
    times = run.pick(TIMES, 5)
    with run.guest() as guest:
        return {'time': guest.seconds(guest.ask(f'pam times {times}')) / times}


@case('slots/plug-unplug', 'plugging a DIMM of 128 MiB and unplugging it, without the guest', {
    'plug': Metric('s', 'object-add and device_add'),
    'unplug': Metric('s', 'device_del to object-del')}, archs=('x86_64',), sizes=(1,),
      reasons={'unplug': 'Linux looks for the page tables of the DIMM alone, page by page, so that '
                         'the guest keeps those of its other RAM (slot-zap-all=off).'})
def plug_unplug(run):
    with run.guest(*SLOTS) as guest:
        return {'plug': run.timed(plug, guest), 'unplug': run.timed(unplug, guest)}
