"""A container whose processes stand still for a moment.

Rules: a mark is set before they are stopped and taken away when they go on, so that the agent after one that died in between
lets them go on.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from agent.runtime.spawn import run
from model.errors import RuntimeFailed


@contextlib.asynccontextmanager
async def paused(runtime: Sequence[str], container_id: str, mark: Path, runs: Callable[[], bool]) -> AsyncIterator[None]:
    """`runtime`: the OCI runtime with its options. Raises RuntimeFailed; one that ended meanwhile is fine."""
    mark.touch()
    try:
        code, text = await run([*runtime, "pause", container_id])
        if code != 0 and runs():
            raise RuntimeFailed(f"cannot pause the container: {text.strip() or f'exit code {code}'}")
        yield
    finally:
        await resume(runtime, container_id, mark)


async def resume(runtime: Sequence[str], container_id: str, mark: Path) -> None:
    """Let them go on; one that goes on already, or has ended, is fine."""
    await run([*runtime, "resume", container_id])
    mark.unlink(missing_ok=True)
