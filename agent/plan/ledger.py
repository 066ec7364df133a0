"""What the journal holds and what was reported, so that neither is told twice.

Rules: pure. Journal entries come before reports, both before the effects of the same step.
"""

from __future__ import annotations

from agent.plan import effects as fx
from agent.plan.records import Life, ReplicaId
from agent.plan.status import kept, replica_status
from model.documents import ReplicaStatus


class Ledger:
    """The last told state of every replica."""

    def __init__(self) -> None:
        self._saved: dict[ReplicaId, Life] = {}
        self._reported: dict[ReplicaId, ReplicaStatus] = {}

    def loaded(self, life: Life) -> None:
        """The journal holds this entry already."""
        self._saved[life.id] = life

    def news(self, life: Life) -> list[fx.Effect]:
        """What the journal and the controller do not know of it yet."""
        out: list[fx.Effect] = []
        keep = kept(life)
        if keep is not None and keep != self._saved.get(life.id):
            self._saved[life.id] = keep
            out.append(fx.Save(keep))
        status = replica_status(life)
        if status != self._reported.get(life.id):
            self._reported[life.id] = status
            out.append(fx.Report(status))
        return out

    def gone(self, replica: ReplicaId) -> list[fx.Effect]:
        """Nothing is left of it."""
        out: list[fx.Effect] = []
        if self._saved.pop(replica, None) is not None:
            out.append(fx.Drop(replica))
        if self._reported.pop(replica, None) is not None:
            out.append(fx.Gone(replica))
        return out
