"""`GET /v1/replicas/{name}/export`: a container's files as a tar, passed through from its node."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from starlette.responses import Response, StreamingResponse

from controller.api.context import Api, Call
from controller.api.replicas import placed_replica, replica_key
from protos import node_pb2 as pb

TAR: Final = "application/x-tar"


async def export(api: Api, call: Call) -> Response:
    """The answer begins with the first bytes, so that a refusal is an error and no archive."""
    row = placed_replica(api, call.path["name"])
    chunks = api.agents.stream(row["node"], "Export", pb.ContainerRequest(key=replica_key(row)))
    first = await anext(chunks)

    async def pieces() -> AsyncGenerator[bytes, None]:
        async with aclosing(chunks):
            yield first.data
            async for chunk in chunks:
                yield chunk.data

    return StreamingResponse(pieces(), media_type=TAR)
