# SPDX-License-Identifier: GPL-2.0-or-later
"""A repository with our scripts, and as QEMU's tree three files."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

# What the user builds does not count here.
CLEAN = {k: v for k, v in os.environ.items() if k not in ('BASE', 'QEMU_SRC')}
SCRIPTS = Path(__file__).resolve().parent.parent
KVM_ALL = ''.join(f'line {i}\n' for i in range(1, 10))
PATCH = '''kvm-all must say two.

--- a/accel/kvm/kvm-all.c
+++ b/accel/kvm/kvm-all.c
@@ -1,3 +1,3 @@
 line 1
-line 2
+line two
 line 3
'''


class TestCase(unittest.TestCase):
    def setUp(self):
        self.top = Path(tempfile.mkdtemp(prefix='repository-test.'))
        self.addCleanup(shutil.rmtree, self.top)
        self.repo = self.top / 'repo'
        self.build = self.repo / 'build'
        self.tree = self.build / 'src/qemu'
        upstream = self.top / 'upstream'
        for name, text in {'VERSION': '10.0.13\n', 'configure': '',
                           'accel/kvm/kvm-all.c': KVM_ALL}.items():
            self.write(upstream / name, text)
        self.write(self.build / 'meson-private/coredata.dat', '')
        self.write(self.repo / '.gitignore', '/build*/\n')
        shutil.copytree(SCRIPTS, self.repo / 'scripts')
        # The bases without what they lay over QEMU's tree
        shutil.copytree(SCRIPTS.parent / 'base', self.repo / 'base', symlinks=True,
                        ignore=lambda top, names: {n for n in names if n != 'source'
                                                   and Path(top).name != 'base'})
        self.run_script('qemu-source.py', '--source', upstream, self.build)

    def write(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run_script(self, script, *args, **env):
        return subprocess.run([sys.executable, str(self.repo / 'scripts' / script),
                               *map(str, args)], cwd=self.repo, text=True,
                              env=CLEAN | env,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def only(self, *programs):
        """A PATH on which there are only these programs."""
        directory = self.top / 'bin'
        directory.mkdir(exist_ok=True)
        for name in programs:
            (directory / name).symlink_to(shutil.which(name))
        return str(directory)

    def overlay(self):
        result = self.run_script('overlay.py', self.build)
        self.assertEqual(result.returncode, 0, result.stderr)

    def overlay_error(self):
        result = self.run_script('overlay.py', self.build)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertNotIn('Traceback', result.stderr)
        return result.stderr

    def patch(self, text=PATCH):
        self.write(self.repo / 'accel/kvm/kvm-all.c.patch', text)

    def kvm_all(self):
        return (self.tree / 'accel/kvm/kvm-all.c').read_text()
