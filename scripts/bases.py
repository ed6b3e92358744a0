# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMU series that this overlay is made for: base/SERIES/source describes each."""

import configparser
import sys
from pathlib import Path

BASES = Path(__file__).resolve().parent.parent / 'base'


class Base:
    def __init__(self, series):
        self.series = series
        self.source = BASES / series / 'source'
        if not self.source.exists():
            known = ', '.join(sorted(p.parent.name for p in BASES.glob('[0-9]*/source')))
            sys.exit(f'error: this overlay is not made for QEMU {series}, but for: {known}')
        ini = configparser.ConfigParser(delimiters='=')
        ini.optionxform = str
        ini.read_string(self.source.read_text())
        self.version = ini['qemu']['version']
        self.suite = ini['qemu']['suite']
        self.hashes = dict(ini['sha256'])


def default():
    return Base((BASES / 'default').resolve().name)


def of_tree(tree):
    """The base that a tree of QEMU belongs to, by its file VERSION."""
    return Base('.'.join((tree / 'VERSION').read_text().strip().split('.')[:2]))
