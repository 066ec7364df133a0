"""What comes with a build: its context as a file, and the Dockerfile in it.

Rules: synchronous but for `spool`. The context is a stranger's: it was unpacked after chroot, no link in it leads out of it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from agent.images.trees import open_regular
from agent.plan.build import Rewritten
from model.dockerfile import TEXT_BYTES_MAX
from model.errors import BadInput

OUTSIDE: Final = ".shoal-dockerfile"
"""The name of a Dockerfile that is not of the context: it is taken out again before the build."""
_IN_ROOT: Final = 0x10 | 0x02  # RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS


async def spool(context: AsyncIterator[bytes], path: Path, bytes_max: int) -> None:
    """Write it down as it comes; all of it is taken, also when it is too much."""
    size = 0
    with path.open("wb") as file:
        async for piece in context:
            size += len(piece)
            if size <= bytes_max:
                await asyncio.to_thread(file.write, piece)
    if size > bytes_max:
        raise BadInput(f"build context: {size} bytes are more than the {bytes_max} that a node takes")
    if not size:
        raise BadInput("build context: nothing was sent")


def dockerfile_text(context: Path, name: str) -> str:
    """Its links lead nowhere but into the context. One that is not of the context is taken out of it."""
    try:
        directory = os.open(context, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with open(open_regular(directory, name, _IN_ROOT), "rb") as file:
                data = file.read(TEXT_BYTES_MAX + 1)
        finally:
            os.close(directory)
    except OSError as error:
        raise BadInput(f"cannot read the Dockerfile {name} of the build context: {error.strerror}") from None
    if name == OUTSIDE:
        (context / name).unlink()
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BadInput(f"{name} is not UTF-8 text") from None


def write_dockerfile(work: Path, made: Rewritten) -> None:
    (work / "given" / "Dockerfile").write_text(made.text)
    for path, text in made.files:
        target = work / "given" / "here" / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
