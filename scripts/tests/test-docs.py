#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test that what the pages name exists: states, members, messages, files and tests.

Pages that nobody checks tell of things that have gone, and not of those that came.
"""

import re
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import tap

TOP = Path(__file__).resolve().parents[2]
DIRECTORIES = [p for p in TOP.iterdir() if p.is_dir() and not p.name.startswith(('.', 'build'))]
MANUAL = TOP / 'docs/system/guest-memfd.rst'
DEVEL = TOP / 'docs/devel/guest-memfd.rst'
PAGES = [*TOP.glob('*.md'), *TOP.glob('docs/*/*.rst')]
SCHEMA = (TOP / 'qapi/guest-memfd.json').read_text()
# What QEMU, the kernel and other programs say, and we only explain
FOREIGN = {'Permission denied', 'Too many open files', 'Unknown ramblock',
           # since QEMU 10.2
           'Snapshots are not compatible with multifd',
           'preallocating memory failed: Cannot allocate memory',
           'vhost_set_mem_table failed: Input/output error'}


def literals(text):
    """What stands between `` and ``, on one line; between ` and ` in Markdown."""
    return [' '.join(word.split()) for word in re.findall(r'(?:``|`)([^`]+)(?:``|`)', text)]


def section(page, title):
    """The text of a page from a heading to the next one."""
    return re.search(rf'^{re.escape(title)}\n([-~])\1+\n(.*?)(?=^[^\n]+\n[-~=]{{4,}}$|\Z)',
                     page.read_text(), re.MULTILINE | re.DOTALL)[2]


def first_column(text):
    """The first cells of the rows of list-tables, without their headers."""
    return re.findall(r'^   \* - (.*?)(?=^     - )', text, re.MULTILINE | re.DOTALL)


def sources():
    """Our C, and what our patches add, with the pieces of each string put together."""
    text = ''.join(path.read_text() for top in DIRECTORIES if top.name != 'tests'
                   for path in top.glob('**/*') if path.suffix in ('.c', '.patch'))
    return re.sub(r'"\n\+?\s*"', '', text)


class ManualTest(unittest.TestCase):
    def test_all_states_are_explained(self):
        states = re.search(r"'enum': 'GuestMemfdSlotState',\s*'data': \[([^]]*)", SCHEMA)[1]
        states = re.findall(r"'([\w-]+)'", states)
        rows = [word for cell in first_column(section(MANUAL, 'State of the memory'))
                for word in literals(cell)]
        self.assertEqual(sorted(states), sorted(rows))

    def test_members_of_the_query_are_explained(self):
        text = literals(section(MANUAL, 'State of the memory'))
        for name in 'allocated', 'bound', 'mapped', 'switches', 'max-inhibit-us':
            self.assertIn(f"'{name}':", SCHEMA)
            self.assertIn(name, text)

    def test_all_properties_are_explained(self):
        code = ''.join((TOP / name).read_text() for name in (
            'backends/hostmem-guest-memfd.c', 'hw/core/machine-guest-memfd.c',
            'accel/kvm/guest-memfd-zap.c'))
        text = literals(section(MANUAL, 'Properties'))
        names = re.findall(r'object_class_property_add\w*\(oc, "([\w-]+)"', code)
        self.assertTrue(names)
        for name in names:
            self.assertIn(name, text)

    def test_messages_are_ours(self):
        code = sources()
        messages = [word for cell in first_column(section(MANUAL, 'Errors, and what to do'))
                    for word in literals(cell)]
        self.assertGreater(len(messages), 20)
        for message in set(messages) - FOREIGN:
            for piece in message.split(' ... '):
                self.assertIn(piece, code)


class FileTest(unittest.TestCase):
    def test_files_exist(self):
        """What a page names in one of our directories is there."""
        gone = []
        tops = '|'.join(p.name for p in DIRECTORIES)
        for page in PAGES:
            # Also the README's layout, which is not between backquotes
            words = re.findall(rf'(?<![\w/.~-])(?:{tops})/[\w./*-]*[\w*/]', page.read_text())
            for word in words:
                # For the reader to fill in; a test; QEMU's own
                if re.search(r'SERIES|^migration/[^.]*$|^contrib/vhost-user-blk$', word):
                    continue
                if not any([*TOP.glob(name)] for name in (word, f'{word}.patch')):
                    gone.append(f'{page.name}: {word}')
        self.assertEqual(gone, [])

    def test_tests_exist(self):
        """The developers' page names tests by the first part of their names."""
        qtests = ''.join(p.read_text() for p in TOP.glob('tests/qtest/*.c'))
        nested = (TOP / 'tests/nested/cases.py').read_text()
        proofs = re.findall(r'^     - (.*?)(?=^   \* |\Z|^To repeat)',
                            section(DEVEL, 'Promises, and what proves them'),
                            re.MULTILINE | re.DOTALL)
        names = [name for cell in proofs for name in literals(cell)
                 if re.fullmatch(r'[a-z-]+(/[a-z-]+)*(/\*)?', name) and '/' in name
                 and not name.startswith('tests/')]
        self.assertGreater(len(names), 30)
        for name in names:
            start = re.escape(name.removesuffix('*').rstrip('/'))
            self.assertTrue(re.search(rf'"(?:/guest-memfd/)?{start}\b', qtests)
                            or re.search(rf"'{start}\b", nested), name)


if __name__ == '__main__':
    tap.main()
