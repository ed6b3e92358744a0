#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build QEMU in BUILD/qemu: source, overlay, configure, ninja, option ROMs, BUILD/bin.

Meson's target `qemu` runs this on every build: build-qemu.py BUILD/options.json STAMP.
Each step does nothing when what it made is up to date.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import entry

SCRIPTS = Path(__file__).resolve().parent
PROGRAMS = ['qemu-img', 'storage-daemon/qemu-storage-daemon', 'qemu-io', 'qemu-nbd']


def run(*command, **kwargs):
    result = subprocess.run([str(c) for c in command], **kwargs)
    if result.returncode:
        sys.exit(result.returncode)
    return result


def environment(repo):
    """A clone in another directory finds this one's objects in the compiler cache.

    The price: with a cached object, a debugger names the directory of the first clone. What the
    environment says comes first: packages are the same with the cache as without.
    """
    return {'CCACHE_BASEDIR': str(repo), 'CCACHE_NOHASHDIR': '1', **os.environ}


def configure(qemu, options, env):
    """Run QEMU's configure when its options are not those of the last time."""
    command = ['../src/qemu/configure', f'--python={sys.executable}',
               f'--cc={compiler()}', *options]
    done = qemu / 'configured.json'
    if done.exists() and json.loads(done.read_text()) == command:
        return
    done.unlink(missing_ok=True)
    qemu.mkdir(exist_ok=True)
    print('Configuring QEMU', flush=True)
    log = qemu / 'configure.log'
    with log.open('w') as out:
        code = subprocess.run(command, cwd=qemu, env=env, stdout=out,
                              stderr=subprocess.STDOUT).returncode
    if code:
        print(''.join(log.read_text().splitlines(True)[-25:]))
        sys.exit(f"error: QEMU's configure failed; all it said is in {log}")
    done.write_text(json.dumps(command))


def compiler():
    cc = os.environ.get('CC', 'gcc')
    return f'ccache {cc}' if shutil.which('ccache') and not cc.startswith('ccache') else cc


def ninja(qemu, targets, env):
    """Run ninja; where nobody watches a terminal, a line for each twentieth is enough."""
    if sys.stdout.isatty():
        run('ninja', '-C', qemu, *targets, env=dict(env, NINJA_STATUS='[%f/%t %es] '))
        return
    step = 0
    with subprocess.Popen(['ninja', '-C', str(qemu), *targets], env=env, text=True,
                          errors='replace', stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            at = re.match(r'\[(\d+)/(\d+)\] ', line)
            if at:
                now, total = map(int, at.groups())
                if now * 20 // total == step and now != total:
                    continue
                step = now * 20 // total
            print(line, end='', flush=True)
    if process.returncode:
        sys.exit(process.returncode)


def option_roms(qemu):
    """Build the ROMs that Debian's source leaves out as binaries (kvmvapic and others).

    QEMU's configure leaves this to a cross compiler; on x86 the host's does as well.
    """
    roms = qemu / 'pc-bios/optionrom'
    cc = 'gcc' if os.uname().machine == 'x86_64' else 'x86_64-linux-gnu-gcc'
    if not (roms / 'config.mak').exists():
        if not shutil.which(cc):
            print(f'notice: without {cc} there are no option ROMs for x86 guests')
            return
        (roms / 'config.mak').write_text(
            f'TOPSRC_DIR={qemu.parent}/src/qemu\nTARGET_DIR=pc-bios/optionrom/\n'
            f'CC={cc}\nOBJCOPY={cc[:-3]}objcopy\nPYTHON={sys.executable}\n')
    made = subprocess.run(['make', '-s', '-C', str(roms), 'all'], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        sys.exit(f'{made.stdout}error: the option ROMs do not build')


def link(where, target):
    where.parent.mkdir(parents=True, exist_ok=True)
    if not (where.is_symlink() and os.readlink(where) == str(target)):
        where.unlink(missing_ok=True)
        where.symlink_to(target)


def programs(build, qemu, datadir, firmware):
    """Link the programs to BUILD/bin, and their firmware to where they look for it.

    A QEMU that runs in its build tree looks for each of its directories below
    qemu-bundle/ beside it.
    """
    bundle = qemu / 'qemu-bundle'
    for directory in firmware:
        if directory == datadir:
            continue            # what is there is for the QEMU that is installed
        where = bundle / directory.lstrip('/')
        if where.is_dir() and not where.is_symlink():
            for file in Path(directory).glob('*.*'):
                link(where / file.name, file)
        else:
            link(where, directory)
    for rom in (qemu / 'pc-bios/optionrom').glob('*.bin'):
        link(bundle / datadir.lstrip('/') / rom.name, rom)
    for path in [*qemu.glob('qemu-system-*'), *(qemu / p for p in PROGRAMS)]:
        if path.is_file():
            link(build / 'bin' / path.name, os.path.relpath(path, build / 'bin'))


def main():
    file, stamp = map(Path, sys.argv[1:])
    options = json.loads(file.read_text())
    build = file.resolve().parent
    qemu = build / 'qemu'
    env = environment(SCRIPTS.parent)
    start = time.time()
    run(sys.executable, SCRIPTS / 'qemu-source.py', '--base', options['base'],
        '--source', options['source'], build)
    run(sys.executable, SCRIPTS / 'overlay.py', build)
    configure(qemu, options['configure'].splitlines(), env)
    ninja(qemu, options['targets'].splitlines(), env)
    option_roms(qemu)
    programs(build, qemu, options['datadir'], options['firmware'].splitlines())
    stamp.touch()
    print(f'QEMU is up to date in {build}/bin ({time.time() - start:.0f} s)')


if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.SIG_DFL)     # Ctrl-C is no case for a traceback
    entry.run(main)
