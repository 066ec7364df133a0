"""The decision about machines: facts and now in, one plan out.

Rules: what the machines' own lives ask for comes first, then additions, then removals, and never both in one pass. Run twice on
the same facts the second plan is empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from controller.decide.batch import Batch
from controller.decide.machines.growing import grow
from controller.decide.machines.lives import live
from controller.decide.machines.shrinking import held, shrink
from controller.decide.machines.types import ON_THE_WAY, Crew, MachineFacts, MachinesStep, Memory, token_prefix
from controller.decide.types import Plan, View
from model.documents import key

LOOK_MS: Final = 5_000
"""As long as there are groups everything is looked at again at least so often."""


def decide_machines(facts: MachineFacts, now_ms: int) -> MachinesStep:
    """Documents of machines, of nodes that are drained, taken back or labelled, and what is deleted: nodes that leave the
    cluster, tokens that nobody may use any more, groups that have no machine left."""
    view = facts.view
    deletes = [key("machines", name) for name in sorted(view.machines.keys() - view.groups.keys())]
    if not view.groups:
        return MachinesStep(Plan(deletes=tuple(deletes)), {})
    batch = Batch(view, facts.settings, now_ms)
    crews = [
        Crew(group, view.machines.get(name), facts.memories.get(name, Memory()), now_ms)
        for name, group in sorted(view.groups.items())
    ]
    for crew in crews:
        if crew.group.forget:
            crew.machines.clear()
            continue
        stays = held(batch, crew)
        if stays:
            crew.notes.append(stays)
        live(facts, crew, stays)
    grow(Batch(_as_written(view, crews), facts.settings, now_ms), crews)
    while shrink(Batch(_as_written(view, crews), facts.settings, now_ms), crews):
        pass  # who may leave now is another question
    deletes += [path for crew in crews for path in _deletes(facts, crew)]
    plan = Plan(
        machines=tuple(document for crew in crews if (document := crew.document()) != crew.stored and not _is_over(crew)),
        nodes=tuple(crew.nodes[name] for crew in crews for name in sorted(crew.nodes) if name not in crew.gone),
        deletes=tuple(sorted(set(deletes))),
        events=tuple(event for crew in crews for event in crew.events),
        wake_at_ms=min((at for crew in crews for at in (*crew.wakes, now_ms + LOOK_MS)), default=None),
        sentence="; ".join(event.sentence for crew in crews for event in crew.events[:3]) or "what is known of machines",
    )
    refused = {crew.spec.name: tuple(crew.refused) for crew in crews}
    return MachinesStep(plan, {crew.spec.name: _notes(crew) for crew in crews}, refused)


def _as_written(view: View, crews: Iterable[Crew]) -> View:
    """With the nodes as they will be: the labels of one that has just joined decide who fits."""
    nodes = {name: document for crew in crews for name, document in crew.nodes.items()}
    gone = {name for crew in crews for name in crew.gone}
    if not nodes and not gone:
        return view
    return replace(view, nodes={name: nodes.get(name, old) for name, old in view.nodes.items() if name not in gone})


def _is_over(crew: Crew) -> bool:
    return crew.group.removing and not crew.machines


def _deletes(facts: MachineFacts, crew: Crew) -> Iterable[str]:
    view, name = facts.view, crew.spec.name
    yield from (key("nodes", node) for node in crew.gone if node in view.nodes)
    known = crew.before.machines if _is_over(crew) else crew.machines.values()
    spent = tuple(token_prefix(crew.group.id, row.node) for row in known if _is_over(crew) or row.state not in ON_THE_WAY)
    if spent:
        yield from (key("tokens", token) for token in facts.tokens if token.startswith(spent))
    if _is_over(crew):
        yield key("nodegroups", name)
        if crew.stored is not None:
            yield key("machines", name)


def _notes(crew: Crew) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*crew.problems, *crew.notes, *(said for _, said in crew.refused), *crew.stays]))
