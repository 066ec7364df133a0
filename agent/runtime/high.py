"""Descriptors with large numbers, for what there are many of.

Rules: a library that waits by select(2), as that of nftables does, ends the process when the number of its own is over 1,023:
the small ones stay free for it.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

_SELECTABLE: Final = 1024


def moved(fd: int) -> int:
    """The same file under a large number where there is room; `fd` itself is closed then."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SELECTABLE)
    except OSError:
        return fd
    os.close(fd)
    return high
