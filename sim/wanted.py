"""What people were told was accepted, and what of it is not so: a lost update shows here and nowhere else."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from model.documents import NodeDoc, ServiceDoc
from model.spec import Pairs, ServiceSpec

GONE: Final = "gone"
ANY: Final = -1
"""A count that the autoscaler chooses, or once chose."""


@dataclass(frozen=True, slots=True)
class WantedService:
    """`about`: what it belongs to, `stack/NAME` or `service/NAME`."""

    about: str
    image: str
    env: Pairs
    mode: str
    scale: int
    stopped: bool = False


def wanted_of(document: ServiceDoc) -> WantedService:
    kept = document.spec.autoscale is not None or document.kept_replicas is not None
    return _wanted(document.spec, ANY if kept else document.scale, document.stopped)


def wanted_by(spec: ServiceSpec, stopped: bool = False) -> WantedService:
    return _wanted(spec, spec.replicas if spec.autoscale is None else ANY, stopped)


def _wanted(spec: ServiceSpec, scale: int, stopped: bool) -> WantedService:
    about = f"stack/{spec.stack}" if spec.stack else f"service/{spec.name}"
    return WantedService(about, spec.container.image, spec.container.env, spec.mode, scale, stopped)


@dataclass(slots=True)
class Wanted:
    """By full names. `nodes`: those somebody did something with, their availability or "gone". `networks`: those without a
    stack. `unsure`: about these (`stack/shop`, `service/box`, `network/net`, `node/n1`) nobody was told how it ended."""

    services: dict[str, WantedService] = field(default_factory=dict)
    networks: dict[str, None] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)
    unsure: dict[str, None] = field(default_factory=dict)

    def of(self, about: str) -> dict[str, WantedService]:
        return {name: row for name, row in self.services.items() if row.about == about}

    def settle(self, about: str, services: Mapping[str, WantedService]) -> None:
        """These are the services of `about` now. Whose policy was taken away may keep the count it has."""
        before = self.of(about)
        for name in before:
            del self.services[name]
        for name, row in services.items():
            keeps = name in before and before[name].scale == ANY
            self.services[name] = replace(row, scale=ANY) if keeps else row

    def unmet(
        self, services: Mapping[str, ServiceDoc], networks: Collection[str], nodes: Mapping[str, NodeDoc]
    ) -> list[tuple[str, str]]:
        """(about, sentence) of each promise that the documents do not keep, and of what nobody asked for."""
        found = {name: wanted_of(document) for name, document in services.items()}
        rows = [row for name in sorted({*self.services, *found}) if (row := self._service(name, found.get(name)))]
        loose = [name for name in sorted({*self.networks, *networks}) if (name in self.networks) != (name in networks)]
        rows += [(f"network/{name}", _there("network", name, name in networks)) for name in loose]
        for name, wanted in sorted(self.nodes.items()):
            is_now = nodes[name].availability if name in nodes else GONE
            if is_now != wanted:
                rows.append((f"node/{name}", f"node {name} was accepted as {wanted}, it is {is_now}"))
        return [row for row in rows if row[0] not in self.unsure]

    def _service(self, name: str, found: WantedService | None) -> tuple[str, str] | None:
        wanted = self.services.get(name)
        if wanted is None or found is None:
            known = wanted or found
            return (known.about, _there("service", name, wanted is None)) if known else None
        same = replace(wanted, scale=found.scale) if ANY in (wanted.scale, found.scale) else wanted
        return None if same == found else (wanted.about, f"service {name} was accepted as {wanted}, it is {found}")


def _there(kind: str, name: str, there: bool) -> str:
    if there:
        return f"{kind} {name} is there though what was accepted last is that it is not"
    return f"{kind} {name} was accepted and is not there"
