"""Who fetches which blob from whom: nodes from each other before the registry, so that many nodes cost it one copy.

Rules: pure; nodes are numbers, who has something is a set of bits. What is asked is answered at once: a peer, the registry, or
to wait; who waits is told as soon as there is something for him. A holder gives to a few at a time, so that who has got it
gives on and the holders double. One asker at a time is sent to the registry for a blob, none while another brings it from a
peer; each that comes back from there without it lets twice as many go. After two peers that did not deliver an asker goes to
the registry; a peer that failed him is not given to him again, and for a moment to others only where nobody else has it. Who is
silent for `CLAIM_S` has no claim any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

UPLOADS_MAX: Final = 3
"""Of one holder at a time, over all blobs."""
SMALL_BYTES: Final = 256 << 10
"""What is not larger takes no place."""
PEERS_MAX: Final = 2
CLAIM_S: Final = 10.0
SUSPECT_S: Final = 10.0
GOT_S: Final = 600.0
"""How long it is believed of a node that it has what it got, before its image is whole and is told."""
REFUSED_S: Final = 60.0
DOUBLED_MAX: Final = 16

WAIT: Final = -1
REGISTRY: Final = -2
UNKNOWN: Final = -3
"""The source of who says that he fetches, which a new leader has not given him."""


@dataclass(frozen=True, slots=True)
class Answer:
    """To `asker`: a holder's number, `REGISTRY` or `WAIT`."""

    asker: int
    digest: str
    source: int


@dataclass(slots=True)
class _Ask:
    asker: int
    size_bytes: int
    failed: int
    heard_s: float
    source: int = WAIT


@dataclass(slots=True)
class _Blob:
    """`waiting` in the order they came, those whom nobody has failed, and `burnt` the others; `got`: who has it besides those
    known to hold it."""

    waiting: dict[int, _Ask] = field(default_factory=dict)
    burnt: dict[int, _Ask] = field(default_factory=dict)
    fetching: dict[int, _Ask] = field(default_factory=dict)
    got: int = 0
    refused: int = 0
    """How many came back from the registry without it."""
    at_registry: int = 0
    moved_s: float = 0.0

    def waits(self) -> bool:
        return bool(self.waiting or self.burnt)

    def forget(self, node: int) -> _Ask | None:
        """It waits no longer."""
        return self.waiting.pop(node, None) or self.burnt.pop(node, None)


class Sharing:
    """`holders(digest)`: the bits of those that keep it. Times are monotonic seconds. Every call returns what is to be told."""

    def __init__(self, holders: Callable[[str], int]) -> None:
        self._holders = holders
        self.clear()

    def clear(self) -> None:
        self._blobs: dict[str, _Blob] = {}
        self._short: dict[str, None] = {}
        """Blobs that somebody waits for."""
        self._able = 0
        """Bits of those that can be asked."""
        self._uploads: dict[int, int] = {}
        self._full = 0
        self._busy = 0
        self._suspects: dict[int, float] = {}

    def is_idle(self) -> bool:
        return not self._blobs

    # what nodes say

    def came(self, node: int) -> None:
        """It has a session, and can be asked."""
        self._able |= 1 << node

    def left(self, node: int, now_s: float) -> list[Answer]:
        """Its session is over: it wants nothing, and is not asked."""
        self._able &= ~(1 << node)
        self._suspects.pop(node, None)
        for blob in self._blobs.values():
            blob.got &= ~(1 << node)
            blob.forget(node)
            self._end(blob, node)
        return self._give_out(now_s)

    def wanted(self, node: int, digest: str, size_bytes: int, failed: int, now_s: float) -> list[Answer]:
        """`failed`: bits of those that did not deliver it to this node."""
        blob = self._blob(digest, now_s)
        fetching = blob.fetching.get(node)
        if fetching is not None and fetching.failed == failed and fetching.source != UNKNOWN:
            fetching.heard_s = now_s
            return [Answer(node, digest, fetching.source)]  # asked again before the answer came
        self._end(blob, node)
        known = blob.waiting.get(node) or blob.burnt.get(node)
        before = fetching or known
        self._blame(blob, failed & ~(before.failed if before else 0), now_s)
        if known is not None and known.failed == failed:
            known.heard_s = now_s
        else:
            blob.forget(node)
            (blob.burnt if failed else blob.waiting)[node] = _Ask(node, size_bytes, failed, now_s)
        self._short[digest] = None
        answers = self._give_out(now_s)
        return answers if node in blob.fetching else [*answers, Answer(node, digest, WAIT)]

    def fetching(self, node: int, digest: str, size_bytes: int, now_s: float) -> list[Answer]:
        blob = self._blob(digest, now_s)
        ask = blob.fetching.get(node)
        if ask is None:  # a claim that has expired, or was given by another leader
            waited = blob.forget(node)
            blob.fetching[node] = _Ask(node, size_bytes, waited.failed if waited else 0, now_s, UNKNOWN)
        else:
            ask.heard_s = now_s
        return []

    def got(self, node: int, digest: str, now_s: float) -> list[Answer]:
        blob = self._blob(digest, now_s)
        blob.forget(node)
        self._end(blob, node)
        blob.got |= 1 << node
        return self._give_out(now_s)

    def gave_up(self, node: int, digest: str, now_s: float) -> list[Answer]:
        """It wants it no longer: it was refused, stopped, or goes another way."""
        blob = self._blob(digest, now_s)
        blob.forget(node)
        ended = self._end(blob, node)
        if ended is not None and ended.source == REGISTRY:
            blob.refused += 1
        return self._give_out(now_s)

    def look(self, now_s: float) -> list[Answer]:
        """What follows from time alone; a second later it may be more."""
        self._suspects = {node: until for node, until in self._suspects.items() if until > now_s}
        for digest, blob in [*self._blobs.items()]:
            for ask in [ask for ask in (*blob.waiting.values(), *blob.burnt.values()) if now_s - ask.heard_s >= CLAIM_S]:
                blob.forget(ask.asker)
            for ask in [ask for ask in blob.fetching.values() if now_s - ask.heard_s >= CLAIM_S]:
                self._end(blob, ask.asker)
            kept_s = GOT_S if blob.got else REFUSED_S if blob.refused else 0.0
            if not blob.waits() and not blob.fetching and now_s - blob.moved_s >= kept_s:
                del self._blobs[digest]
        return self._give_out(now_s)

    # who is given what

    def _give_out(self, now_s: float) -> list[Answer]:
        answers: list[Answer] = []
        suspects = sum(1 << node for node, until in self._suspects.items() if until > now_s)
        for digest in [*self._short]:
            blob = self._blobs.get(digest)
            if blob is not None:
                answers += self._give(digest, blob, suspects)
            if blob is None or not blob.waits():
                self._short.pop(digest, None)
        return answers

    def _give(self, digest: str, blob: _Blob, suspects: int) -> Iterator[Answer]:
        holders = (self._holders(digest) | blob.got) & self._able
        for ask in [*blob.burnt.values()]:
            source = self._source(blob, ask, holders, suspects)
            if source != WAIT:
                yield self._begin(digest, blob, ask, source)
        while blob.waiting:
            ask = next(iter(blob.waiting.values()))
            source = self._source(blob, ask, holders, suspects)
            if source == WAIT:
                return  # and so it is for the others: there may be thousands
            yield self._begin(digest, blob, ask, source)

    def _begin(self, digest: str, blob: _Blob, ask: _Ask, source: int) -> Answer:
        blob.forget(ask.asker)
        ask.source = source
        blob.fetching[ask.asker] = ask
        if source == REGISTRY:
            blob.at_registry += 1
        elif ask.size_bytes > SMALL_BYTES:
            self._load(source, 1)
        return Answer(ask.asker, digest, source)

    def _source(self, blob: _Blob, ask: _Ask, holders: int, suspects: int) -> int:
        holders &= ~(1 << ask.asker) & ~ask.failed
        is_open = blob.at_registry < 1 << min(blob.refused, DOUBLED_MAX)
        good = holders & ~suspects
        if ask.failed.bit_count() < PEERS_MAX:
            free = self._free(good, ask.size_bytes)
            if free:
                return self._pick(free, ask.asker)
            if good or len(blob.fetching) > blob.at_registry:
                return WAIT
        if blob.refused and holders:  # it may be in no registry: whoever has it
            free = self._free(holders, ask.size_bytes)
            return self._pick(free, ask.asker) if free else WAIT
        return REGISTRY if is_open else WAIT

    def _free(self, holders: int, size_bytes: int) -> int:
        return holders if size_bytes <= SMALL_BYTES else holders & ~self._full

    def _pick(self, free: int, asker: int) -> int:
        """One that gives to nobody, else any; not the same for everybody."""
        free = free & ~self._busy or free
        above = free >> asker << asker
        bits = above or free
        return (bits & -bits).bit_length() - 1

    # the books

    def _blob(self, digest: str, now_s: float) -> _Blob:
        blob = self._blobs.get(digest)
        if blob is None:
            blob = self._blobs[digest] = _Blob()
        blob.moved_s = now_s
        return blob

    def _end(self, blob: _Blob, node: int) -> _Ask | None:
        """It fetches no longer; what it was."""
        ask = blob.fetching.pop(node, None)
        if ask is not None and ask.source == REGISTRY:
            blob.at_registry -= 1
        elif ask is not None and ask.source >= 0 and ask.size_bytes > SMALL_BYTES:
            self._load(ask.source, -1)
        return ask

    def _blame(self, blob: _Blob, failed: int, now_s: float) -> None:
        blob.got &= ~failed
        while failed:
            low = failed & -failed
            self._suspects[low.bit_length() - 1] = now_s + SUSPECT_S
            failed ^= low

    def _load(self, node: int, more: int) -> None:
        count = self._uploads.get(node, 0) + more
        bit = 1 << node
        if count > 0:
            self._uploads[node] = count
        else:
            self._uploads.pop(node, None)
        self._busy = self._busy | bit if count > 0 else self._busy & ~bit
        self._full = self._full | bit if count >= UPLOADS_MAX else self._full & ~bit
