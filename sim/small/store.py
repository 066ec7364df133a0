"""The small model's store: one immutable mapping with revisions and the store's one promise, guarded transactions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from controller.loops.picture import KINDS, Snapshot
from model import codec
from model.documents import PREFIX
from model.store_port import Guard, Op, Put


@dataclass(frozen=True, eq=False)
class SmallStore:
    """Key -> (value, mod_revision). Never changed: a write gives another one."""

    rows: Mapping[str, tuple[bytes, int]]
    revision: int = 0

    def holds(self, wanted: Iterable[Guard]) -> bool:
        return all(self.rows.get(guard.key, (b"", 0))[1] == guard.mod_revision for guard in wanted)

    def written(self, ops: Iterable[Op]) -> SmallStore:
        rows, revision = dict(self.rows), self.revision + 1
        for op in ops:
            if isinstance(op, Put):
                rows[op.key] = (op.value, revision)
            else:
                rows.pop(getattr(op, "key", ""), None)
        return SmallStore(rows, revision)

    def contents(self) -> tuple[tuple[str, bytes], ...]:
        return tuple(sorted((key, value) for key, (value, _) in self.rows.items()))

    def against(self, newest: SmallStore) -> object:
        """What tells this picture from others as old as it: its contents, and which of its guards would still hold."""
        if self is newest:
            return None
        return tuple(sorted((key, row[0], row == newest.rows.get(key)) for key, row in self.rows.items()))

    @lru_cache(maxsize=10_000)  # noqa: B019  # bounded, and a search ends with its process
    def snapshot(self) -> Snapshot:
        documents: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        for key, (value, _) in self.rows.items():
            kind, _, name = key[len(PREFIX) :].partition("/")
            documents[kind][name] = _decoded(kind, value)
        revisions = {key: revision for key, (_, revision) in self.rows.items()}
        return Snapshot(documents, revisions, self.revision)


EMPTY: Final = SmallStore({})


@lru_cache(maxsize=100_000)
def _decoded(kind: str, value: bytes) -> Any:
    return codec.decode(KINDS[kind], value)
