# SPDX-License-Identifier: GPL-2.0-or-later
"""How a script of ours starts."""

import subprocess
import sys

# Where Python runs another program, in its modules subprocess and os
RUNNERS = {'_execute_child', '_posix_spawn', '_execvpe'}
NOT_FOUND = 127     # as a shell script ends that needs what is not installed


def run(main):
    """Return what main() does. A program that is not installed is a sentence, not a traceback."""
    try:
        return main()
    except (FileNotFoundError, PermissionError) as e:
        traceback = e.__traceback__
        while traceback.tb_next:
            traceback = traceback.tb_next
        if traceback.tb_frame.f_code.co_name not in RUNNERS:
            raise
        sys.exit(f'error: cannot run {e.filename}, which is needed here: {e.strerror}')
    except subprocess.CalledProcessError as e:
        if e.returncode != NOT_FOUND:
            raise
        sys.exit(f'error: {e.cmd[0]} cannot run what it needs: see above')
