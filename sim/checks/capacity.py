"""Capacity and host ports: an assignment never takes more of a node than it has, nor a port twice.

Rules: looked at where an assignment is added. Reservations and constraints may change under what runs already (no container is
restarted for it): within the time a picture may be old the older document counts too.
"""

from __future__ import annotations

from scheduler.ports import PortClaim, clash
from sim.checks.facts import Row, Step
from sim.checks.ground import Checker


class Capacity(Checker):
    """Sums of reservations per node, and the ports of mode host."""

    def wrote(self, step: Step) -> None:
        if not step.added:
            return
        nodes: dict[str, list[Row]] = {}
        for row in step.added:
            nodes.setdefault(row.node, []).append(row)
        for node, rows in nodes.items():
            self._fits(step, node, rows)
            if any(self._ports(row) for row in rows):
                self._ports_free(step, node, rows)

    def _fits(self, step: Step, node: str, added: list[Row]) -> None:
        if node not in self.facts.capacity or not any(self._reserves(row) for row in added):
            return
        before = [row for row in step.removed if row.node == node]
        growth = self._load(added, step.at_s), self._load(before, step.at_s)
        rows = [row for services in self.facts.rows[node].values() for row in services.values()]
        load, room = self._load(rows, step.at_s), self.facts.capacity[node]
        for at, unit in enumerate(("cpus", "bytes of memory")):
            if growth[0][at] > growth[1][at] + 1e-6 and load[at] > room[at] + 1e-6:
                text = f"{load[at]:g} {unit} are reserved of {room[at]:g}; the last one given: {added[-1]}"
                self.bad(step.at_s, "capacity", f"node/{node}", text)

    def _reserves(self, row: Row) -> bool:
        document = self.facts.service(row.service_id)
        reserved = document.spec.reservations if document else None
        return reserved is not None and (reserved.cpus > 0 or reserved.memory_bytes > 0)

    def _load(self, rows: list[Row], at_s: float) -> tuple[float, float]:
        """Cores and bytes: of each service the least it reserved lately."""
        each: dict[str, tuple[float, float]] = {}
        cpus = memory = 0.0
        for row in rows:
            if row.service_id not in each:
                each[row.service_id] = self._least(row, at_s)
            cpus += each[row.service_id][0]
            memory += each[row.service_id][1]
        return cpus, memory

    def _least(self, row: Row, at_s: float) -> tuple[float, float]:
        documents = self.facts.recently("services", row.service, at_s)
        mine = [document for document in documents if document is not None and document.id == row.service_id]
        if not mine:
            return 0.0, 0.0  # it is being removed
        reserved = [document.spec.reservations for document in mine]
        return min(one.cpus for one in reserved), min(one.memory_bytes for one in reserved)

    # ---- ports

    def _ports(self, row: Row) -> list[PortClaim]:
        """What the replica takes of its node, by its own version."""
        spec = self.facts.specs.get((row.service_id, row.version))
        if spec is None:
            return []
        return [
            PortClaim(port.protocol, port.published, port.host_ip)
            for port in spec.container.ports if port.mode == "host" and port.published and not port.published_end
        ]  # fmt: skip

    def _ports_free(self, step: Step, node: str, added: list[Row]) -> None:
        others = [row for services in self.facts.rows[node].values() for row in services.values()]
        for row in added:
            for other in others:
                if other == row or (other.service_id, other.slot) == (row.service_id, row.slot):
                    continue
                for mine in self._ports(row):
                    for theirs in self._ports(other):
                        if clash(mine, theirs):
                            self.bad(step.at_s, "port", f"node/{node}", f"{row} and {other} both take {mine.number}")

