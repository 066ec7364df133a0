"""Filling a new volume with what the image has at its target, as Docker does.

Rules: the image's root is joined by a short-lived overlay mount and only read. The target is resolved inside the root: a link
in the image cannot lead to the host. Owner, mode, times, extended attributes and hard links are kept.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from model.errors import DiskFull, RuntimeFailed


def copy_from_image(layers: Sequence[Path], target: str, destination: Path, work_dir: Path) -> None:
    """Copy the content of directory `target` of the image into the empty `destination`; nothing when it is not there.

    `work_dir`: on the same file system as the volumes. Raises RuntimeFailed.
    """
    from agent.images.overlay import mount_root, unmount_all
    from agent.images.roots import resolve_in_root

    if not any(os.path.lexists(os.path.join(layer, target.lstrip("/").split("/")[0])) for layer in layers):
        return
    work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(dir=work_dir, prefix="copy-"))
    root, upper, work = (folder / name for name in ("root", "upper", "work"))
    try:
        for path in (root, upper, work):
            path.mkdir(mode=0o755)
        mount_root(layers, upper, work, root)
        source = root / resolve_in_root(root, target).lstrip("/")
        if source.is_dir() and not source.is_symlink():
            _copy(source, destination)
    finally:
        unmount_all(root)
        shutil.rmtree(folder, ignore_errors=True)


def sweep(work_dir: Path) -> None:
    """Take away what copies cut off by the agent's death have left."""
    if not work_dir.is_dir():
        return
    from agent.images.overlay import unmount_all

    for folder in work_dir.iterdir():
        unmount_all(folder / "root")
        shutil.rmtree(folder, ignore_errors=True)


def _copy(source: Path, destination: Path) -> None:
    result = subprocess.run(
        ["cp", "-a", "--reflink=auto", "--", f"{source}/.", str(destination)],
        capture_output=True, check=False, close_fds=True, env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    if result.returncode != 0:
        text = result.stderr.decode(errors="replace").strip()
        what = f"volume {destination.parent.name}, filled from the image"
        if os.strerror(errno.ENOSPC) in text or os.strerror(errno.EDQUOT) in text:
            raise DiskFull(f"{what}: disk full: free space on this node")
        raise RuntimeFailed(f"{what}: {(text.splitlines() or ['cp failed'])[-1]}")
