"""Who keeps samples and who asks for them.

Rules: memory of the leader only; a new leader begins empty, and what is missing never scales in. Values are floats, times are
Unix ms at the end of a step; a step is a second, and longer where nodes measure less often. What is told of a step is told when
every node that still speaks has told it, or when it had its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from controller.decide.scaling.types import Series
from protos import node_pb2 as pb

KEPT_S: Final = 900

SERVICE_FIELDS: Final = (
    "replicas", "cpu_cores", "throttled", "memory_bytes", "pids", "rx_bytes_per_s", "tx_bytes_per_s", "read_bytes_per_s",
    "write_bytes_per_s", "connections_per_s", "in_bytes_per_s", "out_bytes_per_s", "open",
)  # fmt: skip
"""Columns of a service's and of a replica's history; `replicas`: how many spoke; `throttled`: their mean."""
NODE_FIELDS: Final = (
    "cpu_cores", "memory_bytes", "rx_bytes_per_s", "tx_bytes_per_s", "read_bytes_per_s", "write_bytes_per_s", "disk_used_bytes",
    "disk_bytes",
)  # fmt: skip

History = Mapping[str, Sequence[float | None]]
"""`at_ms` and the columns, equally long, oldest first; None: nobody spoke."""


class Samples(Protocol):
    """Fifteen minutes of everything; less of each replica where there are very many."""

    def take(self, node: str, samples: pb.Samples) -> None:
        """From a session. Nonsense (NaN, negative, far in the future) is dropped."""

    def wake(self, node: str, service_id: str, waiting: int) -> None:
        """Callers of a sleeping service, held on `node`."""

    def waiting(self, service_id: str) -> int:
        """Callers held on all nodes."""

    def forget_node(self, node: str) -> None:
        """Its session is over: it holds no callers, and nobody waits for its samples. Its history stays."""

    def clear(self) -> None:
        """The reign is over."""

    def settled_ms(self) -> int:
        """The end of the newest step that is told."""

    def step_ms(self) -> int:
        """How long a step is now."""

    def service(self, service_id: str, since_ms: int = 0) -> History: ...

    def replica(self, service_id: str, slot: int, since_ms: int = 0, node: str = "") -> History:
        """`node`: of a global service's replica, which has no slot of its own."""

    def node(self, name: str, since_ms: int = 0) -> History: ...

    def series(self, service_id: str, kind: str, reservation: float, query: str = "") -> Series:
        """A sensor as the autoscaler wants it: cpu and memory divided by `reservation` (cores, bytes of one replica)."""
