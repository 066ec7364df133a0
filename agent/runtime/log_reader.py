"""Reading a replica's logs through all their parts.

Rules: only whole lines are taken; what conmon has written by half waits. A part that vanishes while it is read is held open and
read to its end. Blocks of 64 KiB, so memory does not grow with the log.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from agent.plan.container import LogLine
from agent.plan.log_lines import LogName, parse_line, parts

_BLOCK_BYTES: Final = 65536


class LogCursor:
    """A place in the log; `read` goes on from there, over the ends of parts and of containers."""

    def __init__(self, directory: Path, part: LogName | None = None, offset: int = 0) -> None:
        self._directory = directory
        self._part = part
        self._offset = offset
        self._fd = -1
        self._half = b""
        self.at_ns = 0

    def read(self) -> list[LogLine]:
        """The next block's lines; empty when there is nothing more for now."""
        while True:
            following = self._next()  # looked up before reading: what this part still gets afterwards is read first
            if self._fd < 0 and not self._open(following):
                return []
            data = os.pread(self._fd, _BLOCK_BYTES, self._offset)
            if data:
                self._offset += len(data)
                lines = self._lines(data)
                if lines:
                    return lines
                continue
            if following is None or following == self._part:
                return []
            self.close()
            self._part, self._offset, self._half = following, 0, b""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()

    def _next(self) -> LogName | None:
        """The part after the present one (the first one before any was opened)."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for found in parts(os.listdir(self._directory)):
                if self._part is None or found > self._part:
                    return found
        return None

    def _open(self, following: LogName | None) -> bool:
        for part in (self._part, following):
            if part is not None:
                with contextlib.suppress(FileNotFoundError):
                    self._fd = os.open(self._directory / part.text, os.O_RDONLY | os.O_CLOEXEC)
                    self._offset = self._offset if part == self._part else 0
                    self._part = part
                    return True
        return False

    def _lines(self, data: bytes) -> list[LogLine]:
        whole, newline, rest = (self._half + data).rpartition(b"\n")
        self._half = rest
        if not newline:
            return []
        owner = self._part.container_id if self._part else ""
        found = (parse_line(raw + b"\n", owner) for raw in whole.split(b"\n"))
        lines = [line for line in found if line is not None]
        if lines:
            self.at_ns = lines[-1].at_ns
        return lines


def last_bytes(file: Path, count: int) -> str:
    """The end of one file; empty when it is gone."""
    try:
        with open(file, "rb") as handle:
            return os.pread(handle.fileno(), count, max(0, os.fstat(handle.fileno()).st_size - count)).decode(errors="replace")
    except OSError:
        return ""


def first_cursor(directory: Path, container_id: str) -> LogCursor:
    """A cursor before the first line that is kept of one container."""
    with contextlib.suppress(FileNotFoundError):
        own = next((part for part in parts(os.listdir(directory)) if part.container_id == container_id), None)
        return LogCursor(directory, own)
    return LogCursor(directory)


def tail_cursor(directory: Path, tail: int) -> LogCursor:
    """A cursor before the newest `tail` lines (-1: before everything)."""
    if tail < 0:
        return LogCursor(directory)
    try:
        names = parts(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return LogCursor(directory)
    missing = tail
    for part in reversed(names):
        with contextlib.suppress(FileNotFoundError), open(directory / part.text, "rb") as file:
            offset, missing = _back(file.fileno(), missing)
            if missing <= 0:
                return LogCursor(directory, part, offset)
    return LogCursor(directory, names[0] if names else None)


def _back(fd: int, lines: int) -> tuple[int, int]:
    """Offset at which the last `lines` whole lines begin, and how many are missing."""
    end = os.fstat(fd).st_size
    position = end
    missing = lines + 1  # the newline before the first wanted line
    while position > 0:
        start = max(0, position - _BLOCK_BYTES)
        block = os.pread(fd, position - start, start)
        count = block.count(b"\n")
        if count >= missing:
            at = len(block)
            for _ in range(missing):
                at = block.rindex(b"\n", 0, at)
            return start + at + 1, 0
        missing -= count
        position = start
    return 0, missing - 1
