# SPDX-License-Identifier: GPL-2.0-or-later
"""What guest_memfd RAM costs and gives, beside other RAM, on the machine that this runs on.

Pure functions, each tested without a virtual machine:
  figures     medians, spreads, ratios; what differs between two runs
  schedule    whose turn it is, and how many rounds fit into the time
  goals       what a figure should be, and whether it is
What measures:
  backends    the kinds of RAM
  bare        the operation of the kernel below, in a C loop (bare.c): the limit
  guest       a virtual machine with our guest program
  host        the host's memory
  machine     the machine in words
  cases/      what is measured, a file a group
  runner      takes turns, and goes on when something fails
What is left of it:
  results     the figures of a run, as a file
  history     the runs that were
  table, plots, page      the same for the terminal, the eyes and the manual
"""
