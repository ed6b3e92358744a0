# SPDX-License-Identifier: GPL-2.0-or-later
"""An initramfs: programs with the libraries they need, Python, and other files."""

import importlib.util
import marshal
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LIBRARIES = ['lib/{0}-linux-gnu', 'usr/lib/{0}-linux-gnu', 'lib64', 'usr/lib64', 'lib', 'usr/lib']


class Image:
    """Files by their path; libraries come from `root`, an installed system of `arch`."""

    def __init__(self, arch, root):
        self.arch = arch
        self.root = root
        self.cross = '' if arch == os.uname().machine else f'{arch}-linux-gnu-'
        self.files = {}

    def add(self, path, content, mode=0o644):
        """A file with this content; a Path stands for the content of that file."""
        self.files[path.lstrip('/')] = (content, mode)

    def program(self, path, source):
        """An ELF file without debugging information, and the libraries it needs."""
        path = path.lstrip('/')
        if path in self.files:
            return
        self.add(path, self.stripped(source), 0o755)
        elf = subprocess.run([f'{self.cross}readelf', '-dlW', source], text=True, check=True,
                             env=dict(os.environ, LC_ALL='C'), stdout=subprocess.PIPE).stdout
        for loader in re.findall(r'interpreter: /(.*?)\]', elf):
            self.add(loader, self.library(Path(loader).name, source), 0o755)
        for name in re.findall(r'\(NEEDED\).*\[(.*)\]', elf):
            self.program(f'lib/{name}', self.library(name, source))

    def stripped(self, source):
        with tempfile.NamedTemporaryFile() as out:
            subprocess.run([f'{self.cross}strip', '--strip-debug', '-o', out.name, source],
                           check=True)
            return Path(out.name).read_bytes()

    def library(self, name, user):
        for directory in LIBRARIES:
            found = self.root / directory.format(self.arch) / name
            if found.exists():
                return found
        sys.exit(f'error: {user} needs {name}, which is not in {self.root}')

    def python(self, script, *search):
        """Python as /bin/python3, and in /usr/lib/python3.N what the script imports."""
        home = next((self.root / 'usr/lib').glob('python3.*/os.py')).parent
        version = home.name
        self.program('bin/python3', self.root / 'usr/bin' / version)
        if version != 'python%d.%d' % sys.version_info[:2]:
            sys.exit(f'error: {self.root} has {version}: run this with the same version')
        for name, relative in imports(script, search):
            sources = [d / relative for d in (*search, home) if (d / relative).exists()]
            if sources:
                # Bytecode: emulated processors are slow at compiling
                self.add(f'usr/lib/{version}/{relative}c', bytecode(sources[0]))
            for library in home.glob(f'lib-dynload/{name}.*.so'):
                self.program(f'usr/lib/{version}/lib-dynload/{library.name}', library)

    def write(self, out):
        """The archive that the kernel unpacks: cpio, format newc."""
        directories = {str(d) for f in self.files for d in Path(f).parents} - {'.'}
        entries = [(d, b'', 0o040755) for d in sorted(directories)]
        entries += [(f, c, 0o100000 | mode) for f, (c, mode) in self.files.items()]
        entries += [('TRAILER!!!', b'', 0)]
        with out.open('wb') as archive:
            for inode, (name, content, mode) in enumerate(entries):
                if isinstance(content, Path):
                    content = content.read_bytes()
                name = name.encode() + b'\0'
                fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
                header = b'070701' + b''.join(b'%08x' % f for f in fields) + name
                archive.write(header + bytes(-len(header) % 4))
                archive.write(content + bytes(-len(content) % 4))


def imports(script, search):
    """Modules that a script needs: their names, and their sources relative to sys.path."""
    code = f"""
import runpy, site, sys, encodings.ascii, encodings.idna, encodings.utf_8
sys.path[:0] = {[str(s) for s in search]}
runpy.run_path({str(script)!r})
for name, module in sys.modules.items():
    inits = hasattr(module, '__path__') and '/__init__'
    print(name, name.replace('.', '/') + (inits or '') + '.py')
"""
    listing = subprocess.run([sys.executable, '-c', code], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
    return [line.split() for line in listing.splitlines()]


def bytecode(source):
    """As in a .pyc file that needs no source beside it."""
    code = compile(source.read_bytes(), f'/{source.name}', 'exec', dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)
