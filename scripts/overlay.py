#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Lay this repository over QEMU's tree, BUILD/src/qemu.

The rule: but for what OURS names, a file here is the file there, and X.patch here is our edit
of QEMU's own X. Of the files at the top only patches count. Files that git ignores do not.

base/SERIES is laid over the tree in the same way when QEMU is of that series: what is there
takes the place of what is here for the same file, and a patch there of a file of ours
changes that file.

A file is written only when its content changes, so only what depends on it recompiles;
what leaves the repository leaves the tree. All patches are tried before anything is
written. A file that somebody edited in the tree is never overwritten.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bases
import entry

OURS = {'base', 'bench', 'contrib', 'debian', 'packaging', 'scripts',
        'tests/guest-memfd/console.py', 'tests/libvirt', 'tests/nested', 'tests/packages',
        'tests/peers', 'tests/qtest/on-guest-memfd', 'tests/soak'}
REPO = Path(__file__).resolve().parent.parent
JUNK = ('.orig', '.rej', '~', '.pyc')


def listing(build):
    """Every file of the repository that git would show; without git, every file."""
    if (REPO / '.git').exists() and shutil.which('git'):
        git = subprocess.run(['git', 'ls-files', '-zco', '--exclude-standard'], cwd=REPO,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if git.returncode == 0:
            return [REPO / f for f in os.fsdecode(git.stdout).split('\0') if f]
    found = []
    for where, dirs, files in os.walk(REPO):
        dirs[:] = [d for d in dirs if d != '__pycache__' and Path(where, d) != build
                   and not Path(where, d, 'meson-private').exists()]
        found += [Path(where, f) for f in files]
    return found


def overlaid(files, top):
    """Of the files, those that `top` lays over the tree, by their path from there."""
    for path in files:
        if not path.is_relative_to(top):
            continue
        name = path.relative_to(top)
        if name.parts[0].startswith('.') or name.name.endswith(JUNK) \
                or OURS & {str(p) for p in (name, *name.parents)}:
            continue
        if path.is_file() and (len(name.parts) > 1 or name.suffix == '.patch'):
            yield str(name), path


def chosen_build():
    """The build directory that the user's BASE and QEMU_SRC choose."""
    where = subprocess.run([str(REPO / 'scripts/build-dir')], text=True, stdout=subprocess.PIPE)
    if where.returncode:
        sys.exit(where.returncode)
    return REPO / where.stdout.strip()


def own_base(build):
    """The directory of what is for the build's series of QEMU alone."""
    return REPO / 'base' / bases.of_tree(build / 'src/pristine').series


def sources(build):
    """What makes each file of the tree that is not as QEMU has it: patches, or first a file."""
    found = {}
    files = sorted(listing(build))
    for top in REPO, own_base(build):
        layer = {}
        for name, path in overlaid(files, top):
            layer.setdefault(name.removesuffix('.patch'), []).append(path)
        for name, paths in layer.items():
            ours = [p for p in found.get(name, []) if p.suffix != '.patch']
            found[name] = [*ours, *paths] if paths[0].suffix == '.patch' else paths
    return found


def made(name, paths, pristine):
    """The content of a file of the tree, and the file that its mode is taken from."""
    original = pristine / name
    version = (pristine / 'VERSION').read_text().strip()
    if paths[0].suffix != '.patch':
        if original.exists():
            raise SystemExit(
                f'error: {name} is a file of QEMU {version}: edit it by {name}.patch')
        original, *paths = paths
    elif not original.is_file():
        raise SystemExit(f'error: {shown(paths[0])} does not apply to {name} of QEMU '
                         f'{version}: there is no such file')
    content = original.read_bytes()
    for patch in paths:
        result = subprocess.run(
            ['patch', '--silent', '--forward', '--fuzz=0', '--reject-file=-', '--output=-',
             str(original), str(patch)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if result.returncode:
            raise SystemExit(f'error: {shown(patch)} does not apply to {name} of QEMU '
                             f'{version}: {os.fsdecode(result.stderr).strip()}')
        content = result.stdout
    return content, original


def difference(name, original, edited):
    """What a patch of the file has below its head."""
    diff = subprocess.run(['diff', '-pU1', '--label', f'a/{name}', '--label', f'b/{name}',
                           str(original), str(edited)], stdout=subprocess.PIPE)
    if diff.returncode > 1:
        sys.exit(diff.returncode)
    return diff.stdout


def shown(path):
    return path.relative_to(REPO)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def recorded(build):
    """The digest of each file that the overlay last wrote to the tree."""
    record = build / 'src/overlay.json'
    return json.loads(record.read_text()) if record.exists() else {}


def overlay(build):
    pristine, tree = build / 'src/pristine', build / 'src/qemu'
    before = recorded(build)

    wanted = {name: made(name, paths, pristine)
              for name, paths in sources(build).items()}
    for name in before.keys() - wanted.keys():
        original = pristine / name
        wanted[name] = (original.read_bytes(), original) if original.exists() else (None, None)

    after = {}
    changed = []
    edited = []
    for name, (content, _) in wanted.items():
        now = digest(tree / name)
        after[name] = content is not None and hashlib.sha256(content).hexdigest()
        if now != (after[name] or None):
            changed.append(name)
            if now not in (None, before.get(name, digest(pristine / name))):
                edited.append(name)
    if edited:
        raise SystemExit(
            'error: edited in the build tree since the overlay wrote it: '
            + ', '.join(edited) + '\nTake the edits in by: scripts/refresh-patch '
            + ' '.join(edited) + f'\nor drop them by removing the files from {tree}')

    for name in changed:
        content, model = wanted[name]
        target = tree / name
        if content is None:
            target.unlink(missing_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + '.overlay')
        temporary.write_bytes(content)
        temporary.chmod(model.stat().st_mode & 0o777 | 0o200)
        temporary.replace(target)
    ours = {n: d for n, d in after.items() if d and d != digest(pristine / n)}
    (build / 'src/overlay.json').write_text(json.dumps(ours, indent=1, sort_keys=True))
    if changed:
        print(f'Overlay: {len(changed)} of {len(ours)} files changed')


def main():
    overlay(Path(sys.argv[1]).resolve())


if __name__ == '__main__':
    entry.run(main)
