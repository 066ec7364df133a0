"""Which replicas a service needs, where they are, and what to do about the difference. All services of a pass in one batch.

Rules:
- What is placed stays. Missing slots go through the scheduler in one batch; new slots take the lost ones' numbers, then the
  lowest free ones. A slot keeps its number for life.
- A replica on a `down` node is started elsewhere, its old entry stays in that node's document (the node may be alive behind a
  cut); after the return the surplus is trimmed (standing.py). Removed nodes leave nothing.
- Drained nodes and nodes that no longer fit: the new one is started first, the old one goes when it runs. What is tied (volume,
  fixed node, job) cannot run twice: drained away at once, it waits for its node.
- A new version is rolled out in place (rollout.py). `stopped` services keep their assignments as they are.
- Who has more priority gets room first, and may take that of others (placing.py).
- One event and one sentence for each service and pass, never one for each replica.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from controller.decide import needs
from controller.decide.batch import Batch
from controller.decide.fixed import place_fixed
from controller.decide.idle import SLICES
from controller.decide.placing import place
from controller.decide.preempting import bare
from controller.decide.rollout import credible
from controller.decide.standing import has_ended
from controller.decide.types import Plan, Settings, View
from controller.decide.wording import counted, listed
from controller.decide.work import Work, begin
from model.documents import ServiceDoc
from model.states import REJECTED

AUTO_REMOVE_MS: Final = 3_000
"""So long the exit code of a finished `--rm` container can still be read."""


def decide_services(view: View, dirty: Collection[str] | None, settings: Settings, now_ms: int) -> Plan:
    """The plan for the services named in `dirty` (None: all; use None after a node's state, labels or availability changed).
    With `SLICES` among them, or None, slices that nobody uses are looked for.

    When the pass takes something away, the services that wait for room are decided too.
    """
    batch = Batch(view, settings, now_ms)
    look = dirty is None or SLICES in dirty
    names = batch.names(None if dirty is None else [name for name in dirty if name != SLICES])
    works = _prepared(batch, names)
    if dirty is not None and (batch.draft.frees or batch.answers.frees or _may_preempt(batch, works)):
        others = sorted(set(batch.waiting_names()) - set(names))
        works += _prepared(batch, others)
    place(batch, works, lambda names: _prepared(batch, names))
    for work in works:
        work.waiting.sort()
        if work.fixed:
            place_fixed(batch, work)
        batch.say(work.name, _parts(batch, work), tuple(work.waiting), tuple(dict.fromkeys(work.notes)))
    if dirty is None:
        _drop_places(batch)
    batch.mind_slices(look)
    return batch.plan()


def _may_preempt(batch: Batch, works: list[Work]) -> bool:
    """Whether somebody may be stopped to make room for another one, or has just come to be of less priority than who waits."""
    if not batch.index.ranks.several:
        return False
    if any(work.asks and batch.index.ranks.any_below(work.priority) for work in works):
        return True
    lowest = min((work.priority for work in works if len(work.standing)), default=None)
    docs = [doc for name in batch.waiting_names() if (doc := batch.view.services.get(name))] if lowest is not None else []
    return any(doc.spec.priority > lowest for doc in docs if lowest is not None)


def _prepared(batch: Batch, names: list[str]) -> list[Work]:
    works = [work for name in names if (work := _prepare(batch, name)) is not None]
    for work in works:
        batch.answers.release(work.doc)
    for work in works:  # when the networks of all are planned
        work.notes += batch.answers.settle(work.doc)
    return works


def _prepare(batch: Batch, name: str) -> Work | None:
    doc = batch.view.services.get(name)
    if doc is None:
        _remove(batch, name, "")
        return None
    if doc.spec.autoscale is None:
        batch.unscale(name)
    work = begin(batch, doc)
    if doc.spec.auto_remove and _finished(batch, work):
        return None
    _trim(batch, work)
    if not doc.stopped:
        needs.find(batch, work)
    return work


def _remove(batch: Batch, name: str, sentence: str) -> None:
    """Everything assigned under the name goes, also from the documents of nodes that are down."""
    entries = batch.index.placed.get(name, {})
    count = 0
    for node in sorted(entries):
        for held in entries[node].replicas:
            batch.draft.drop(node, name, held)
            count += 1
    if not sentence and count:
        sentence = f"{name} is removed with its {counted(count)}"
    batch.answers.drop(name)
    batch.forget(name, sentence)


def _finished(batch: Batch, work: Work) -> bool:
    """Whether a `--rm` container has ended and is removed now."""
    slot = next(iter(work.standing.slots.values()), None)
    status = slot.primary.status if slot else None
    if status is None or not (has_ended(status, work.doc.spec.container.restart) or status.state == REJECTED):
        return False
    at = credible(status.since_ms, status.created_ms, batch.now_ms) + AUTO_REMOVE_MS
    if batch.now_ms < at:
        batch.wake(work.name, at)
        return False
    code = f"exit code {status.exit_code}" if status.exit_code is not None else status.message or status.state
    _remove(batch, work.name, f"{work.name} ended with {code} and is removed, as --rm asks")
    batch.delete("services", work.name)
    return True


def _trim(batch: Batch, work: Work) -> None:
    """Second holders of a slot that are no longer needed."""
    surplus = work.standing.surplus
    for held in surplus:
        batch.draft.drop(held.node, work.name, held.replica)
    if not surplus:
        return
    left = [held for held in surplus if held.leaving or not held.current]
    returned = [held for held in surplus if not held.leaving and held.current]
    if returned:
        names = listed([work.named(held) for held in returned])
        work.parts.append(("trimmed", f"surplus trimmed: {names}: another replica of the slot runs"))
    if left:
        work.parts.append(("moved", f"{listed([work.named(held) for held in left])} removed: the successor runs"))


def _parts(batch: Batch, work: Work) -> list[tuple[str, str]]:
    """What is said of the pass: with why replicas wait, when that is new."""
    before = batch.view.decisions.get(work.name)
    known = {*before.notes, *(bare(reason) for _, reason in before.waiting)} if before else set()
    counts = Counter(bare(reason) for _, reason in work.waiting)
    if any(reason not in known for reason in counts):
        texts = [f"{counted(count)} {'wait' if count > 1 else 'waits'}: {why}" for why, count in list(counts.items())[:3]]
        work.parts.append(("waiting", " | ".join(texts)))
    news = [note for note in dict.fromkeys(work.notes) if note not in known]
    if news:
        work.parts.append(("waiting", listed(news)))
    return work.parts


def _drop_places(batch: Batch) -> None:
    """Places of volumes that neither exist nor are used, and nodes that were removed from them."""
    used = {name for doc in batch.view.services.values() for name in _mounted(doc)}
    for name, doc in batch.view.places.items():
        if name not in batch.view.volumes and name not in used and name not in batch.draft.places:
            batch.delete("places", name)
        elif name not in batch.draft.places and any(node not in batch.view.nodes for node in doc.nodes):
            batch.draft.places[name] = replace(doc, nodes=batch.draft.nodes_of(name))


def _mounted(doc: ServiceDoc) -> list[str]:
    return [mount.source for mount in doc.spec.container.mounts if mount.type == "volume" and mount.source]
