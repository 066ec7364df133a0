"""A container's root: image layers below, its own writable layer on top, joined by overlayfs.

Rules: mounting is done by the calling thread, in the mount namespace it is in; nothing is forked. The new mount API
takes one layer a call and hundreds of layers; kernels without it (before 6.8) get mount(2), whose options must fit
into one page, so layers are named by short file descriptors there when paths are too long. Overlay features that let a
layer's extended attributes redirect look-ups are switched off.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from agent.images.trees import remove_tree
from model.errors import ImageError

_SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 429, 430, 431, 432
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_CLONE_FS = 0x200
_OPTIONS_BYTES_MAX = 4095
_FSCONFIG_VALUE_BYTES_MAX = 255
_FEATURES: tuple[str, ...] = ("redirect_dir=nofollow", "metacopy=off")
_VOLATILE = ("volatile",)
_libc = ctypes.CDLL(None, use_errno=True)


def mount_root(layers: Sequence[Path], upper: Path, work: Path, target: Path, *, volatile: bool = False) -> None:
    """Mount `layers` (bottom first) with `upper` and `work` (directories of one file system) on `target`.

    `volatile`: nothing is flushed, neither on fsync nor when it is unmounted (an ordinary unmount flushes the WHOLE file
    system that holds `upper`); what the container wrote to its root is lost when the machine dies. Raises ImageError.
    """
    if not layers:
        raise ImageError(f"cannot mount {target}: the image has no layers")
    paths = [*layers, upper, work]
    if any(c in str(path) for path in paths for c in ",:\\"):
        raise ImageError(f"cannot mount {target}: ',', ':' and '\\' are not taken in the paths of the image store")
    features = _FEATURES + (_VOLATILE if volatile else ())
    remove_tree(work / "work" / "incompat" / "volatile")  # a volatile mount's mark: the kernel refuses to mount over it
    try:
        if not knows_the_new_way(os.uname().release):
            raise OSError(errno.ENOSYS, "this kernel takes all layers in one option")
        _mount_new(layers, upper, work, target, features)
    except OSError as new_error:
        try:
            mount_root_old(layers, upper, work, target, features)
        except OSError as error:
            worst = new_error if new_error.errno not in (errno.ENOSYS, errno.EINVAL) else error
            raise ImageError(
                f"cannot mount the root of a container at {target} ({len(layers)} layers): {worst.strerror}"
            ) from None


def knows_the_new_way(release: str) -> bool:
    """From 6.8 on; older kernels would write a line into their log for each container that is tried the new way."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return numbers is None or (int(numbers[1]), int(numbers[2])) >= (6, 8)


def unmount(target: Path) -> None:
    """Take a mount away; busy ones vanish from here at once and end with their last user. Not mounted is fine."""
    for flags in (_UMOUNT_NOFOLLOW, _UMOUNT_NOFOLLOW | _MNT_DETACH):
        if _libc.umount2(os.fsencode(target), flags) == 0:
            return
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOENT):
            return
        if number != errno.EBUSY:
            break
    raise ImageError(f"cannot unmount {target}: {os.strerror(number)}")


def unmount_all(target: Path) -> None:
    """`unmount` until nothing stands there: a mount may lie on another."""
    while os.path.ismount(target):
        unmount(target)


def remove_root(directory: Path, target: Path) -> None:
    """Unmount a container's root and delete its directory, never across a mount point."""
    unmount_all(target)
    remove_tree(directory)


def mounted_lower_directories() -> frozenset[str]:
    """Every lower directory of every overlay mounted in this namespace, where the kernel tells its path."""
    found: set[str] = set()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            _, _, tail = line.partition(" - overlay ")
            for option in tail.rstrip("\n").split(" ")[-1].split(",") if tail else ():
                name, _, value = option.partition("=")
                if name in ("lowerdir", "lowerdir+"):
                    found.update(_unescape(part) for part in value.split(":") if part)
    return frozenset(found)


def mount_root_old(layers: Sequence[Path], upper: Path, work: Path, target: Path, features: Sequence[str] = _FEATURES) -> None:
    """The same by mount(2). Raises OSError."""
    lower = ":".join(str(path) for path in reversed(layers))
    options = _options(lower, upper, work, features)
    if len(options) <= _OPTIONS_BYTES_MAX:
        _mount(target, options)
        return
    descriptors = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in reversed(layers)]
    try:
        short = _options(":".join(str(fd) for fd in descriptors), upper.absolute(), work.absolute(), features)
        if len(short) > _OPTIONS_BYTES_MAX:
            raise OSError(errno.E2BIG, f"{len(layers)} layers are too many for this kernel's mount options")
        _in_descriptor_directory(target.absolute(), short)
    finally:
        for fd in descriptors:
            os.close(fd)


def _in_descriptor_directory(target: Path, options: bytes) -> None:
    """Mount with /proc/self/fd as working directory: in a thread of its own, which stops sharing it first."""
    failures: list[OSError] = []

    def work() -> None:
        try:
            if _libc.unshare(_CLONE_FS) != 0:
                raise _last_error("unshare")
            os.chdir("/proc/thread-self/fd")
            _mount(target, options)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="overlay-mount")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _mount_new(layers: Sequence[Path], upper: Path, work: Path, target: Path, features: Sequence[str]) -> None:
    fs = _call(_SYS_FSOPEN, b"overlay", _FSOPEN_CLOEXEC)
    try:
        for layer in reversed(layers):
            _set(fs, "lowerdir+", str(layer))
        _set(fs, "upperdir", str(upper))
        _set(fs, "workdir", str(work))
        for feature in features:
            name, _, value = feature.partition("=")
            _set(fs, name, value)
        _call(_SYS_FSCONFIG, fs, _FSCONFIG_CMD_CREATE, None, None, 0)
        mount = _call(_SYS_FSMOUNT, fs, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(fs)
    try:
        _call(_SYS_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(mount)


def _set(fs: int, name: str, value: str) -> None:
    if not value:
        _call(_SYS_FSCONFIG, fs, _FSCONFIG_SET_FLAG, name.encode(), None, 0)
        return
    raw = os.fsencode(value)
    if len(raw) > _FSCONFIG_VALUE_BYTES_MAX:
        raise OSError(errno.EINVAL, f"path is longer than {_FSCONFIG_VALUE_BYTES_MAX} bytes")
    _call(_SYS_FSCONFIG, fs, _FSCONFIG_SET_STRING, name.encode(), raw, 0)


def _call(number: int, *arguments: int | bytes | None) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise _last_error("mount")
    return result


def _mount(target: Path, options: bytes) -> None:
    if _libc.mount(b"overlay", os.fsencode(target), b"overlay", 0, options) != 0:
        raise _last_error("mount")


def _options(lower: str, upper: Path, work: Path, features: Sequence[str]) -> bytes:
    return os.fsencode(",".join([f"lowerdir={lower},upperdir={upper},workdir={work}", *features]))


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)


def _unescape(text: str) -> str:
    """mountinfo writes blanks and the like as \\040."""
    if "\\" not in text:
        return text
    return text.encode("utf-8", "surrogateescape").decode("unicode_escape")
