"""Become another program that the kernel kills when our parent dies; run as a file, imports nothing of ours.

    python -I -S launch.py PARENT_PID PROGRAM ARGUMENT…

Death by signal is set here, between fork and exec, rather than in a `preexec_fn`, which may deadlock in a parent with
threads. The setting survives exec. Only Linux has it; elsewhere the program is started without.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Tie this process to its parent, then become the program."""
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew of our wish
            sys.exit(1)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  (a list of arguments, no shell)
    except OSError as error:
        sys.exit(f"{argv[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
