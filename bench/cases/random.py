# SPDX-License-Identifier: GPL-2.0-or-later
"""What pages of 4 KiB cost a guest whose memory is larger than the TLB reaches."""

from . import Metric, case


@case('random/walk', 'the guest reads words here and there in half of its RAM, each address made '
      'from the word before', {'access': Metric('s', 'for one word')}, sizes=(2,),
      backends=('guest-memfd', 'mapped', 'memfd', 'memfd-huge', 'ram', 'ram-thp'),
      bare=lambda run: ('walk', run.size // 2, run.pick(5000000, 1000)), bare_metric='access')
def walk(run):
    start = run.env.ram_start + run.size // 4
    accesses = run.pick(5000000, 1000)
    with run.guest() as guest:
        guest.ask('touch all')
        answer = guest.ask(f'random {start} {run.size // 2} {accesses}')
        return {'access': guest.seconds(answer) / accesses}
