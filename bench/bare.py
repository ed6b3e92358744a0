# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own operation, without a virtual machine around it (bare.c)."""

import os
import subprocess
from pathlib import Path

from .cases import Broken

SOURCE = Path(__file__).parent / 'bare.c'


def build(top):
    """Compile it, in the build directory, if it is older than its source; the program."""
    program = top / 'bench/bare'
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        subprocess.run([*os.environ.get('CC', 'cc').split(), '-O2', '-Wall', '-pthread', SOURCE,
                        '-o', program], check=True)
    return program


def measure(program, operation, size, number):
    """Seconds."""
    result = subprocess.run([program, operation, str(size), str(number)], text=True, check=False,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if result.returncode:
        raise Broken(result.stderr.strip())
    return float(result.stdout)
