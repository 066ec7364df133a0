"""Bytecode for an image's Python, made by that very Python: without it each container compiles 40 modules at its start.

Rules: the image's interpreter is run from a scratch directory through the image's own dynamic loader, so the machine's Python
may be any version, and equal packages give equal bytecode (one fresh process, fixed hash seed, fixed order). Bytecode is
never checked against its source's time (PEP 552).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.images.debs import BuildError, FileEntry

_LOADER = re.compile(r"usr/lib[^/]*/(?:[^/]+/)?ld[-a-z0-9_]*\.so\.\d+")
_PYTHON = re.compile(r"usr/bin/python3\.\d+")
_LIBRARY = re.compile(r"usr/lib/python3\.\d+")


def bytecode(entries: Sequence[FileEntry]) -> list[FileEntry]:
    """The `__pycache__` files of every module among `entries`, which must hold Python and its C library."""
    loader, python = _find(entries, _LOADER), _find(entries, _PYTHON)
    library = next((m[0] for entry in entries if (m := _LIBRARY.match(entry.path))), None)
    if loader is None or python is None or library is None:
        raise BuildError("the Python packages hold no interpreter: delete the cache directory and build again")
    with tempfile.TemporaryDirectory(prefix="shoal-python-") as name:
        top = Path(name)
        _write(top, entries)
        compile_all = ["-S", "-m", "compileall", "-q", "-f", "-o", "0", "--invalidation-mode", "unchecked-hash"]
        command = [
            str(top / loader), "--library-path", str((top / loader).parent), str(top / python),
            *compile_all, "-s", str(top), "-p", "/", str(top / library),
        ]  # fmt: skip
        env = {"PYTHONHOME": str(top / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        made = [
            FileEntry(str(file.relative_to(top)), "file", 0o644, data=file.read_bytes())
            for file in sorted((top / library).rglob("__pycache__/*.pyc"))
        ]
    if not made:
        raise BuildError(f"the image's Python does not compile its library: {done.stderr.strip()[-300:]}")
    return made


def _find(entries: Sequence[FileEntry], pattern: re.Pattern[str]) -> str | None:
    return next((entry.path for entry in entries if entry.kind == "file" and pattern.fullmatch(entry.path)), None)


def _write(top: Path, entries: Sequence[FileEntry]) -> None:
    for entry in entries:
        path = top / entry.path
        if entry.kind == "dir":
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "file":
            path.write_bytes(entry.data)
            path.chmod(0o755 if entry.mode & 0o111 else 0o644)
        elif entry.kind == "link" and not entry.link.startswith("/"):
            path.symlink_to(entry.link)
