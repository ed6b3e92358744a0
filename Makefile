# SPDX-License-Identifier: GPL-2.0-or-later
#
# The habit of the field; the work is done by the scripts and meson.build.
# BASE=SERIES builds another QEMU than the default, as with ./check.

export BASE QEMU_SRC

all:
	@scripts/bootstrap

check demo:
	@./$@

install: all
	@build=$$(scripts/build-dir) && $$build/tools/meson install -C $$build

clean:
	build=$$(scripts/build-dir) && rm -rf $$build

# Patches that others can take: build/series
series:
	@scripts/series

.PHONY: all check demo install series clean
