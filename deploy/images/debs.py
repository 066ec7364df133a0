"""Debian packages as the source of files: the closure of a few names, fetched with the machine's own apt.

Rules: standard library, apt-get, apt-cache and dpkg-deb only; nothing is installed, no maintainer script is run, root is
not needed. Which archive is asked is apt's business. Members come out in a merged-/usr shape, without documentation.
"""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_UNWANTED = ("usr/share/man/", "usr/share/locale/", "usr/share/lintian/", "usr/share/bug/", "usr/share/info/")
_APT_DEPENDS = (
    "apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks",
    "--no-replaces", "--no-enhances",
)  # fmt: skip


class BuildError(Exception):
    """One line that says what failed and what to do."""


@dataclass(frozen=True)
class FileEntry:
    """One thing in a layer. `path` is relative, without a leading slash; `data` only for files, `link` for links."""

    path: str
    kind: str
    mode: int
    data: bytes = b""
    link: str = ""


def closure(names: Iterable[str], left_out: Iterable[str]) -> list[str]:
    """The packages to be unpacked for `names` to work, sorted; `left_out` ones and what only they need are not in it."""
    barred = set(left_out)
    found: set[str] = set()
    todo = sorted(names)
    depends = _direct_depends(todo)
    while todo:
        name = todo.pop()
        if name in found or name in barred:
            continue
        found.add(name)
        todo += depends.get(name, [])
    return sorted(found)


def download(packages: Sequence[str], directory: Path) -> list[Path]:
    """The packages' .deb files in `directory`, in the order of `packages`; those already there are taken as they are."""
    directory.mkdir(parents=True, exist_ok=True)
    missing = [name for name in packages if not list(directory.glob(f"{name}_*.deb"))]
    if missing:
        _run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *missing], directory)
    files = []
    for name in packages:
        matches = sorted(directory.glob(f"{name}_*.deb"))
        if not matches:
            raise BuildError(f"package {name}: apt-get downloaded no file: run `apt-get update` and try again")
        files.append(matches[-1])
    return files


def deb_entries(file: Path) -> Iterator[FileEntry]:
    """The package's files, merged-/usr, without documentation (copyright files stay)."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(file)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                entry = _entry(archive, member)
                if entry is not None:
                    yield entry
        process.stdout.read()
    if process.returncode != 0:
        raise BuildError(f"{file.name}: dpkg-deb cannot read it: delete it and build again")


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> FileEntry | None:
    path = merged(member.name)
    if not path or path.startswith(_UNWANTED) or path in _MERGED:
        return None
    if path.startswith("usr/share/doc/") and not (member.isdir() or path.endswith("/copyright")):
        return None
    if member.isdir():
        return FileEntry(path, "dir", member.mode)
    if member.issym():
        return FileEntry(path, "link", 0o777, link=member.linkname)
    if member.islnk():
        return FileEntry(path, "hardlink", member.mode, link=merged(member.linkname))
    if not member.isreg():
        return None
    content = archive.extractfile(member)
    assert content is not None
    return FileEntry(path, "file", member.mode, data=content.read())


def merged(name: str) -> str:
    """`./lib/x` as `usr/lib/x`."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if parts and parts[0] in _MERGED:
        parts.insert(0, "usr")
    path = "/".join(parts)
    return "" if path in {f"usr/{top}" for top in _MERGED} else path


def _direct_depends(names: Sequence[str]) -> dict[str, list[str]]:
    """Package -> its first real alternatives, for everything reachable."""
    depends: dict[str, list[str]] = {}
    current: list[str] = []
    alternative = False
    for line in _run([*_APT_DEPENDS, *names], Path("/")).splitlines():
        if not line.startswith(" "):
            current = depends.setdefault(line.strip().partition(":")[0], [])
            continue
        text = line.strip()
        is_or, text = text.startswith("|"), text.lstrip("|")
        kind, _, target = text.partition(": ")
        if kind in ("Depends", "PreDepends") and not alternative and not target.startswith("<"):
            current.append(target.partition(":")[0])
        alternative = is_or
    return depends


def _run(command: Sequence[str], directory: Path) -> str:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, env=_environment())
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is missing: the demo images are built on Debian or Ubuntu") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()[-1:]
        raise BuildError(f"{command[0]} {command[1]} failed: {' '.join(lines)} (try `apt-get update`)")
    return done.stdout


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
