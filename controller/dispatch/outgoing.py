"""What a session is told, in an order that is safe: what is guarded, then what runs, then endpoints, and the floor last.

Rules: nothing is queued: each round looks at the flags others raised and says what is newest then. A leader whose lease is over
says nothing more: another one may lead, and what it knows is old.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.dispatch.books import Books
from controller.dispatch.followers import Followers
from controller.dispatch.session import NodeSession, goodbye
from controller.dispatch.stream import NodeStream
from controller.dispatch.turns import Turns
from protos import node_pb2 as pb


async def write_session(
    session: NodeSession, stream: NodeStream, welcome: pb.Welcome, books: Books, followers: Followers, turns: Turns,
    leads: Callable[[], bool],
) -> None:
    """Until its farewell is said."""
    await stream.write(pb.ToNode(welcome=welcome))
    del welcome  # nothing that was said is held while the session waits: there are thousands
    session.wake.set()
    while True:
        await session.wake.wait()
        session.wake.clear()
        if not leads():
            session.end(goodbye("the lease of the lead is over"))
        if session.farewell is not None:
            await stream.write(session.farewell)
            return
        if session.beat:
            beat, session.beat = session.beat, 0
            await stream.write(pb.ToNode(heartbeat=pb.Heartbeat(sequence=beat)))
        while session.sources:
            await stream.write(pb.ToNode(blob_source=session.sources.pop(next(iter(session.sources)))))
        if session.unguarded:
            session.unguarded = False
            await _write_guarded(session, stream, books)
        if session.stale:
            await _write_desired(session, stream, books, turns)
        if session.news:
            await _write_endpoints(session, stream, books, followers)
        if session.floor:
            floor, session.floor = session.floor, 0
            await stream.write(pb.ToNode(floor=pb.Floor(number=floor)))


async def _write_guarded(session: NodeSession, stream: NodeStream, books: Books) -> None:
    guarded = books.guarded(session)
    if guarded is not None:
        await stream.write(pb.ToNode(guarded=guarded))


async def _write_desired(session: NodeSession, stream: NodeStream, books: Books, turns: Turns) -> None:
    async with turns:
        session.stale = False
        desired = books.desired(session)
    if desired is not None:
        await stream.write(desired)


async def _write_endpoints(session: NodeSession, stream: NodeStream, books: Books, followers: Followers) -> None:
    messages, whole = books.endpoints(session)
    followers.was_told(session, whole)
    for message in messages:
        await stream.write(message)
    followers.settle()
