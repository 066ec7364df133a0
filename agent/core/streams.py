"""Joining a gRPC stream with a process: input on one way, output and the exit code on the other.

Rules: the session is closed whatever happens, also when the caller goes away. Output is complete before the exit code is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from agent.runtime.port import Session
from protos import node_pb2 as pb


async def relay(session: Session, requests: AsyncIterator[pb.ExecInput]) -> AsyncIterator[pb.ExecOutput]:
    """What to send to the caller until the process has ended."""
    feeding = asyncio.ensure_future(_feed(session, requests))
    try:
        yield pb.ExecOutput(started=True)
        async for stream, data in session.output():
            yield pb.ExecOutput(stdout=data) if stream == "stdout" else pb.ExecOutput(stderr=data)
        yield pb.ExecOutput(exit_code=await session.wait())
    finally:
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await feeding
        await session.close()


async def _feed(session: Session, requests: AsyncIterator[pb.ExecInput]) -> None:
    async for request in requests:
        match request.WhichOneof("kind"):
            case "stdin":
                await session.write(request.stdin)
            case "stdin_closed":
                await session.close_stdin()
            case "resize":
                await session.resize(request.resize.rows, request.resize.columns)
            case "signal":
                await session.signal(request.signal)
    await session.close_stdin()
