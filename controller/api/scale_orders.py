"""What people say to a service's autoscaler meanwhile: that it is paused, and the floor that a manual scale sets.

Rules: it stands in one document of the service, which goes with the service (the leader sees to it) or when it says nothing any
more. What an order of an earlier service of the same name says does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Literal

from controller.api.context import Api
from controller.api.rows import time_text
from controller.decide.scaling.bounds import reach
from controller.decide.wording import counted
from model.autoscale import Autoscale
from model.documents import ScaleOrderDoc, ServiceDoc
from model.errors import BadInput

FLOOR_S: Final = 600.0
Row = dict[str, Any]
Paused = Literal["", "in", "out", "both"]


async def set_floor(api: Api, doc: ServiceDoc, replicas: int, floor_s: float | None) -> Row:
    """What a manual scale says to the autoscaler, written before the count. Raises BadInput when the policy allows no such
    count."""
    policy = doc.spec.autoscale
    if policy is None or policy.mode != "on":
        if floor_s is not None:
            raise BadInput(f"service {doc.spec.name} does not scale itself: a floor means nothing there")
        return {"floor": 0, "floor_until": ""}
    _allowed(doc.spec.name, policy, replicas)
    until_ms = api.now_ms() + int(1000 * (FLOOR_S if floor_s is None else floor_s))
    floor = replicas if floor_s != 0 else 0
    row = await order(api, doc, lambda said: replace(said, floor=floor, floor_until_ms=until_ms if floor else 0))
    return {"floor": row["floor"], "floor_until": row["floor_until"]}


def _allowed(name: str, policy: Autoscale, replicas: int) -> None:
    least, most = reach(policy)
    if not least <= replicas <= most:
        side, key = (f"at most {counted(most)}", "max") if replicas > most else (f"at least {counted(least)}", "min")
        raise BadInput(f"service {name}: its policy keeps {side}: change {key} in its x-autoscale")


async def order(api: Api, doc: ServiceDoc, change: Callable[[ScaleOrderDoc], ScaleOrderDoc]) -> Row:
    """Writes what people say to the service's autoscaler; an order that says nothing goes."""
    name, empty = doc.spec.name, ScaleOrderDoc(doc.id, doc.spec.name)

    def edit(old: ScaleOrderDoc | None) -> ScaleOrderDoc | None:
        before = old if old is not None and old.id == doc.id else empty
        after = change(before)
        if after == before and old is not None and after != empty:
            return old
        return None if after == empty else after

    _, new, revision = await api.edit("scaleorders", name, edit)
    said: ScaleOrderDoc = new or empty
    return {
        "service": name,
        "paused": said.paused,
        "floor": said.floor,
        "floor_until": time_text(said.floor_until_ms),
        "index": revision,
    }
