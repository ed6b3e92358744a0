# SPDX-License-Identifier: GPL-2.0-or-later
"""How a script of ours starts."""

import sys

# Where Python runs another program, in its modules subprocess and os
RUNNERS = {'_execute_child', '_posix_spawn', '_execvpe'}


def run(main):
    """Call main(). A program that is not installed is a sentence, not a traceback."""
    try:
        main()
    except (FileNotFoundError, PermissionError) as e:
        traceback = e.__traceback__
        while traceback.tb_next:
            traceback = traceback.tb_next
        if traceback.tb_frame.f_code.co_name not in RUNNERS:
            raise
        sys.exit(f'error: cannot run {e.filename}, which is needed here: {e.strerror}')
