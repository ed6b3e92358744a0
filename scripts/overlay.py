#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Lay this repository over QEMU's tree, BUILD/src/qemu.

The rule: in every top-level directory but those named in OURS, a file here is the file
there, and X.patch here is our edit of QEMU's own X. Of the files at the top only patches
count. Files that git ignores do not.

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

import entry

OURS = {'base', 'bench', 'contrib', 'packaging', 'scripts'}
JUNK = ('.orig', '.rej', '~', '.pyc')


def listing(repo, build):
    """Every file of the repository that git would show; without git, every file."""
    if (repo / '.git').exists() and shutil.which('git'):
        git = subprocess.run(['git', 'ls-files', '-zco', '--exclude-standard'], cwd=repo,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if git.returncode == 0:
            return [repo / f for f in os.fsdecode(git.stdout).split('\0') if f]
    found = []
    for where, dirs, files in os.walk(repo):
        dirs[:] = [d for d in dirs if d != '__pycache__' and Path(where, d) != build
                   and not Path(where, d, 'meson-private').exists()]
        found += [Path(where, f) for f in files]
    return found


def overlaid(repo, build):
    """The files of the repository that go into the tree, by their path there."""
    for path in listing(repo, build):
        name = path.relative_to(repo)
        top = name.parts[0]
        if top in OURS or top.startswith('.') or name.name.endswith(JUNK):
            continue
        if path.is_file() and (len(name.parts) > 1 or name.suffix == '.patch'):
            yield str(name), path


def patched(patch, name, pristine, base):
    """The content of QEMU's file `name` with `patch` applied."""
    result = None
    if (pristine / name).is_file():
        result = subprocess.run(
            ['patch', '--silent', '--forward', '--fuzz=0', '--reject-file=-', '--output=-',
             str(pristine / name), str(patch)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if result.returncode == 0:
            return result.stdout
    reason = os.fsdecode(result.stderr).strip() if result else 'there is no such file'
    raise SystemExit(f'error: {name}.patch does not apply to {name} of {base}: {reason}')


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def recorded(build):
    """The digest of each file that the overlay last wrote to the tree."""
    record = build / 'src/overlay.json'
    return json.loads(record.read_text()) if record.exists() else {}


def overlay(repo, build):
    pristine, tree = build / 'src/pristine', build / 'src/qemu'
    base = f'QEMU {(pristine / "VERSION").read_text().strip()}'
    before = recorded(build)

    wanted = {}
    for name, path in overlaid(repo, build):
        if name.endswith('.patch'):
            name = name.removesuffix('.patch')
            wanted[name] = (patched(path, name, pristine, base), pristine / name)
        elif (pristine / name).exists():
            raise SystemExit(f'error: {name} is a file of {base}: edit it by {name}.patch')
        else:
            wanted[name] = (path.read_bytes(), path)
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
    overlay(Path(__file__).resolve().parent.parent, Path(sys.argv[1]).resolve())


if __name__ == '__main__':
    entry.run(main)
