"""Who may open a session: the first message, and how somebody is sent away with the reason."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, NoReturn

from controller.certificates import Peer
from controller.dispatch.stream import NodeStream, Refusal
from model.documents import NodeDoc
from model.pki_names import ROLE_NODE
from protos import node_pb2 as pb

log = logging.getLogger(__name__)

HELLO_S: Final = 10.0


async def read_hello(stream: NodeStream) -> pb.Hello:
    """Read before anything is refused: an agent whose Hello meets a closed stream would see an inner error of gRPC instead of
    the reason."""
    message: pb.FromNode | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HELLO_S):
            message = await stream.read()
    if message is None or message.WhichOneof("kind") != "hello":
        await refuse(stream, Refusal.BAD_MESSAGE, "the first message of a session is Hello")
    return message.hello


async def identify(stream: NodeStream) -> Peer:
    peer = await stream.identify()
    if peer is None:
        await refuse(stream, Refusal.NOT_AUTHENTICATED, "no client certificate: join the cluster first")
    if peer.role != ROLE_NODE:
        text = f"a certificate of role {peer.role or 'none'} opens no node session"
        await refuse(stream, Refusal.NOT_ALLOWED, text)
    return peer


def not_admitted(node: str, document: NodeDoc | None) -> str:
    """What a node whose certificate is not (or no longer) that of its document is told, and its log tells its owner."""
    if document is None:
        state = "was removed from the cluster while it was away"
    else:
        state = "is another machine's now: one has joined under this name"
    return (
        f"node {node} {state}. To use this machine again stop its agent, remove node.json and pki/ from the agent's --data-dir "
        "and start it with --join URL --token TOKEN (`shoal node token` makes one); else stop and disable the agent"
    )


async def refuse(stream: NodeStream, why: Refusal, text: str) -> NoReturn:
    log.warning("session refused: %s (%s)", text, stream.where())
    await stream.refuse(why, text)
