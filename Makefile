# SPDX-License-Identifier: GPL-2.0-or-later
#
# The habit of the field; the work is done by the scripts and meson.build.

all:
	@scripts/bootstrap

check demo:
	@./$@

install: all
	@build/tools/meson install -C build

clean:
	rm -rf build

.PHONY: all check demo install clean
