"""Network namespaces without fork: a thread of its own enters the new namespace and ends.

Rules: a thread that changed its namespace is never used again. A namespace is kept alive by a bind mount of it on a file.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from model.errors import RuntimeFailed

T = TypeVar("T")
_CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 4096
_MNT_DETACH: Final = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise RuntimeFailed(f"network namespace: {what}: {os.strerror(code)}")


def in_own_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that ends afterwards, and give its result or exception."""
    box: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            box.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return box[0]


def create(path: Path, inside: Callable[[], T]) -> tuple[int, T]:
    """A new namespace kept by `path`; `inside` runs in it. Gives an open descriptor of the namespace and its result."""

    def work() -> tuple[int, T]:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        source = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        path.touch(mode=0o400)
        _check(_libc.mount(source.encode(), os.fsencode(path), None, _MS_BIND, None), "bind mount")
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return fd, inside()
        except BaseException:
            os.close(fd)
            raise

    return in_own_thread(work)


def temporary(inside: Callable[[], T]) -> T:
    """Run `inside` in a new namespace that ends with it."""

    def work() -> T:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        return inside()

    return in_own_thread(work)


def enter(path: str, inside: Callable[[], T]) -> T:
    """Run `inside` in the namespace that `path` names."""

    def work() -> T:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RuntimeFailed(f"network namespace: enter {path}: {error.strerror}") from error
        try:
            _check(_libc.setns(fd, _CLONE_NEWNET), f"enter {path}")
        finally:
            os.close(fd)
        return inside()

    return in_own_thread(work)


def remove(path: Path) -> None:
    """Let go of the namespace; it ends with its last process. Nothing to do when it is gone."""
    _libc.umount2(os.fsencode(path), _MNT_DETACH)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
