# SPDX-License-Identifier: GPL-2.0-or-later
#
# The habit of the field; the work is done by the scripts and meson.build.
# BASE=SERIES builds another QEMU than the default, as with ./check.

export BASE QEMU_SRC

all:            ## set up and build, into build/bin
	@scripts/bootstrap

demo:           ## ... and boot a guest on guest_memfd RAM, and show that it is
check:          ## ... and run the tests (./check SUITE|TEST... for a part)
check demo:
	@./$@

soak:           ## several VMs to which everything happens at once (HOURS=N, SEED=N, VMS=N)
	@scripts/bootstrap
	@build=$$(scripts/build-dir) && $$build/tools/venv/bin/python3 tests/soak/soak.py $$build

bench:          ## measure what such RAM costs and gives (scripts/bench --help)
	@scripts/bench $(if $(ROUNDS),--rounds "$(ROUNDS)") $(if $(SIZE),--size "$(SIZE)") \
		$(if $(RAM),--ram "$(RAM)") $(if $(filter-out 0,$(ALL)),--all) \
		$(if $(MINUTES),--minutes "$(MINUTES)") $(if $(COMPARE),--compare "$(COMPARE)") \
		$(if $(filter-out 0,$(BREAKAGE)),--breakage) $(BENCH)

docs:           ## QEMU's manual with our pages: build/docs
	@scripts/docs

install: all    ## install; DESTDIR is honoured
	@build=$$(scripts/build-dir) && $$build/tools/meson install -C $$build

clean:          ## remove the build directory, downloads included
	build=$$(scripts/build-dir) && rm -rf $$build

deb:            ## Debian packages for this release: build/deb
	@scripts/deb

series:         ## patches that others can take: build/series
	@scripts/series

help:           ## show this
	@awk -F ':.*##' '/^[a-z]+:.*##/ { printf "make %-9s%s\n", $$1, $$2 }' Makefile
	@echo 'BASE=SERIES, QEMU_SRC=DIR|TARBALL, CC=..., NO_INSTALL=1: see README.md'

.PHONY: all bench check demo soak docs install deb clean series help
