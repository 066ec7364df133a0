"""From a snapshot to the view that decisions read. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from controller.decide.index import Index
from controller.decide.types import Session, View
from controller.loops.picture import Snapshot


def view_of(
    snapshot: Snapshot, index: Index | None = None, sessions: Mapping[str, Session] | None = None, reign_started_ms: int = 0,
    listened_ms: int | None = None,
) -> View:  # fmt: skip
    """`index`: the cache of whoever asks again and again; one thread at a time may use it."""
    of = snapshot.of
    return View(
        services=of("services"), nodes=of("nodes"), health=of("health"), statuses=of("status"),
        assignments=of("assignments"), networks=of("networks"), netplans=of("netplans"), svcplans=of("svcplans"),
        volumes=of("volumes"), places=of("places"), decisions=of("decisions"), stacks=of("stacks"),
        scales=of("scales"), scale_orders=of("scaleorders"),
        controllers=of("controllers"), groups=of("nodegroups"), machines=of("machines"), sessions=sessions or {},
        reign_started_ms=reign_started_ms, listened_ms=listened_ms, index=index,
    )  # fmt: skip
