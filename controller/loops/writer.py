"""From a plan to guarded transactions. `split` is pure; `PlanWriter` sends.

Rules:
- Every transaction compares the mod_revision of each document it writes and the leader's own key: a deposed leader, or one
  whose picture is old, writes nothing.
- What the autoscaler decided about one service is one transaction, guarded by the service too when only read.
- A big plan is cut between documents. Order: places and networks before assignments (a replica must not start before the
  place of its volume is recorded), deletes last. Whatever a cut leaves undone, the next pass finds.
- Unknown outcome: nothing is assumed; the caller waits until the mirror has compared itself and decides again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from controller.decide.types import Plan
from controller.election import Reign
from controller.loops.picture import Picture, Snapshot
from controller.metrics import STORE_SECONDS
from model import codec
from model.documents import key
from model.errors import Conflict
from model.store_port import Delete, Guard, Op, Put, Store

OPS_MAX: Final = 100
BYTES_MAX: Final = 1_000_000


class PlanConflict(Conflict):
    """A document changed meanwhile, or another controller leads: decide again on newer facts."""


def documents(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Key and document of every put of the plan, in the order that is safe to be cut anywhere."""
    kinds: tuple[tuple[str, str, Sequence[Any]], ...] = (
        ("places", "name", plan.places),
        ("netplans", "name", plan.netplans),
        ("svcplans", "name", plan.svcplans),
        ("assignments", "node", plan.assignments),
        ("health", "name", plan.health),
        ("decisions", "name", plan.decisions),
        ("machines", "group", plan.machines),
        ("nodes", "name", plan.nodes),
    )
    for kind, field, rows in kinds:
        for document in rows:
            yield key(kind, getattr(document, field)), document


def operations(plan: Plan) -> Iterator[Op]:
    """Every write of the plan, each encoded when it is asked for: a large plan must not stop everything else for seconds."""
    for path, document in documents(plan):
        yield Put(path, codec.encode(document))
    for path in plan.deletes:
        yield Delete(path)


def scalings(plan: Plan, snapshot: Snapshot) -> Iterator[tuple[list[Guard], dict[str, Any]]]:
    """Guards and documents of each decision of the autoscaler."""
    for document, service in plan.scales:
        name = document.name
        made = {key("scales", name): document, key("services", name): service}
        wanted = [Guard(path, snapshot.revision(path)) for path in made]
        if service is snapshot.of("services").get(name):
            del made[key("services", name)]
        yield wanted, made


def split(ops: Iterable[Op], ops_max: int = OPS_MAX, bytes_max: int = BYTES_MAX) -> Iterator[tuple[Op, ...]]:
    """Runs of operations that fit one transaction each."""
    run: list[Op] = []
    size = 0
    for op in ops:
        weight = len(op.value) + len(op.key) if isinstance(op, Put) else 200
        if run and (len(run) >= ops_max or size + weight > bytes_max):
            yield tuple(run)
            run, size = [], 0
        run.append(op)
        size += weight
    if run:
        yield tuple(run)


def guards(ops: Sequence[Op], snapshot: Snapshot) -> list[Guard]:
    """One guard for each document that is written: as it was in the snapshot the plan was made from."""
    return [Guard(op.key, snapshot.revision(op.key)) for op in ops if isinstance(op, Put | Delete)]


class PlanWriter:
    """Writes plans for as long as the reign lasts."""

    def __init__(self, store: Store, picture: Picture, reign: Reign) -> None:
        self._store = store
        self._picture = picture
        self._reign = reign

    async def write(self, plan: Plan, snapshot: Snapshot) -> int:
        """The revision after the last transaction (0: nothing to write). Raises PlanConflict, StoreError."""
        revision, known = 0, dict(documents(plan))
        for run in split(operations(plan)):
            revision = await self.commit(guards(run, snapshot), run, known)
        for wanted, made in scalings(plan, snapshot):
            puts = [Put(path, codec.encode(document)) for path, document in made.items()]
            revision = await self.commit(wanted, puts, made)
        return revision

    async def commit(self, wanted: Sequence[Guard], ops: Sequence[Op], known: Mapping[str, Any] | None = None) -> int:
        """One transaction under the leader's key. `known`: documents by key: the picture need not decode them."""
        self._reign.check()
        puts = [(op.key, op.value) for op in ops if isinstance(op, Put)]
        with self._picture.writing(puts, known or {}), STORE_SECONDS.labels("txn").time():
            result = await self._store.txn([*wanted, self._reign.guard], ops)
            if result.ok:
                self._picture.from_own_puts(puts, result.revision, known)
        if not result.ok:
            raise PlanConflict("the plan's facts changed while it was made: deciding again")
        return result.revision
