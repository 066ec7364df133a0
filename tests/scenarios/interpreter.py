"""Reads a scenario file, does what its commands say on the model cluster, and gives the file back with what came of it.

A scenario is text: blocks of commands, then `----`, then what they printed, then an empty line. Lines with `#` are comments.

    node NAME... [cpus=4 memory=8G label=zone=a availability=drain]     joined, heard and ready
    service NAME [scale=3 cpus=1 memory=1G global job single rm constraint=.. spread=.. max=2 pin=n1 volume=v network=n
                  parallelism=1 order=start-first version=2 stopped port=8080:80 address=network:10.9.0.9 priority=10]
                             put as written; what is not said has its default. port: 80 (the cluster chooses), 8080:80,
                             8080-8089:80, host:8080:80
    connect SERVICE NETWORK...   what its containers are attached to now
    network NAME [subnet]    volume NAME    delete service|network|volume|node NAME
    kill NODE...   cut NODE...   back NODE...   break SERVICE VERSION   finish SERVICE [CODE]
    pass MS                  time goes by, living nodes are heard
    nodes                    decide about nodes, apply, print
    decide [SERVICE...]      decide about services (all), apply, print what was said and changed
    agents                   living agents do what they are told and report
    settle                   decide and obey until nothing changes; prints where everything is
    show                     prints where everything is
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from controller.decide.types import Plan
from model.documents import AssignmentDoc, NodeInfo
from model.spec import Attachment, ContainerSpec, Mount, Placement, Port, RestartPolicy, UpdateConfig
from tests.scenarios.model_cluster import ModelCluster

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
DIVIDER = "----"


def run(text: str) -> str:
    """The scenario with the output that its commands give now."""
    player, blocks = Player(), []
    for block in text.strip().split("\n\n"):
        commands, _, _ = block.partition(f"\n{DIVIDER}")
        printed = [line for command in commands.splitlines() for line in player.do(command)]
        shown = f"\n{DIVIDER}\n" + "\n".join(printed) if printed or DIVIDER in block else ""
        blocks.append(commands + shown)
    return "\n\n".join(blocks) + "\n"


class Player:
    def __init__(self) -> None:
        self.cluster = ModelCluster(now_ms=1_000_000)

    def do(self, command: str) -> list[str]:
        """What the command prints."""
        words = command.split("#")[0].split()
        if not words:
            return []
        handler: Callable[..., list[str] | None] = getattr(self, f"_{words[0]}")
        return handler(*words[1:]) or []

    def _node(self, *words: str) -> None:
        names, options = _split(words)
        info = NodeInfo(cpus=float(options.pop("cpus", 4)), memory_bytes=_amount(options.pop("memory", "8G")))
        labels = tuple(tuple(pair.split("=", 1)) for pair in options.pop("label", "").split(",") if pair)
        for name in names:
            self.cluster.node(name, info, labels=labels, **options)

    def _service(self, name: str, *words: str) -> None:
        flags, options = _split(words)
        mounts = (Mount("volume", "/data", options.pop("volume")),) if "volume" in options else ()
        update = UpdateConfig(int(options.pop("parallelism", 1)), order=options.pop("order", "stop-first"))
        restart = RestartPolicy("none" if "rm" in flags else "any")
        placement = Placement(
            tuple(text for text in options.pop("constraint", "").split(",") if text),
            tuple(text for text in options.pop("spread", "").split(",") if text),
            int(options.pop("max", 0)), options.pop("pin", ""),
        )  # fmt: skip
        mode = "global" if "global" in flags else "replicated-job" if "job" in flags else "replicated"
        networks = tuple(text for text in options.pop("network", "").split(",") if text)
        ports = tuple(_port(text) for text in options.pop("port", "").split(",") if text)
        asked = tuple(text.split(":") for text in options.pop("address", "").split(",") if text)
        attached = tuple(Attachment(network, ipv4_address=address) for network, address in asked)
        container = ContainerSpec("image", mounts=mounts, restart=restart, ports=ports, networks=attached)
        self.cluster.service(
            name, int(options.pop("scale", 1)), container=container, mode=mode, update=update,
            placement=placement, networks=networks, cpus=float(options.pop("cpus", 0)),
            memory=_amount(options.pop("memory", "0")), version=int(options.pop("version", 1)),
            single="single" in flags, auto_remove="rm" in flags, priority=int(options.pop("priority", 0)),
        )  # fmt: skip
        if options:
            raise ValueError(f"service {name}: unknown options {sorted(options)}")
        if "stopped" in flags:
            self.cluster.change(name, stopped=True)

    def _connect(self, service: str, *networks: str) -> None:
        self.cluster.change(service, networks=tuple(Attachment(network) for network in networks))

    def _network(self, name: str, subnet: str = "") -> None:
        self.cluster.network(name, subnet)

    def _volume(self, name: str) -> None:
        self.cluster.volume(name)

    def _delete(self, kind: str, name: str) -> None:
        del self.cluster.docs[f"{kind}s"][name]
        self.cluster.sessions.pop(name, None)

    def _kill(self, *names: str) -> None:
        self.cluster.kill(*names)

    def _cut(self, *names: str) -> None:
        self.cluster.cut(*names)

    def _back(self, *names: str) -> None:
        self.cluster.back(*names)

    def _break(self, service: str, version: str) -> None:
        self.cluster.broken.add((service, int(version)))

    def _finish(self, service: str, code: str = "0") -> None:
        self.cluster.finish(service, int(code))

    def _pass(self, ms: str) -> None:
        self.cluster.pass_time(int(ms))

    def _nodes(self) -> list[str]:
        return self._print(self.cluster.decide_nodes())

    def _decide(self, *names: str) -> list[str]:
        before: dict[str, AssignmentDoc] = dict(self.cluster.docs["assignments"])
        plan = self.cluster.decide(list(names) or None)
        lines = self._print(plan)
        for doc in plan.assignments:
            lines += _difference(before.get(doc.node), doc)
        for net in plan.netplans:
            fixed = "".join(f", {address} on {node}" for address, node in net.fixed)
            slices = " ".join("=".join(row) for row in net.slices)
            idle = "".join(f", {node} idle" for node, _ in net.idle)
            lines.append(f"  network {net.name}: vni {net.vni}, {net.subnet}, {slices}{fixed}{idle}")
        for row in plan.svcplans:
            ports = [f"{port.published}->{port.target}/{port.protocol}" for port in row.ports]
            lines.append(f"  service {row.name}: {' '.join([*('='.join(vip) for vip in row.vips), *ports])}")
        lines += [f"  volume {place.name}: {', '.join(place.nodes)}" for place in plan.places]
        lines += [f"  delete {path.removeprefix('/shoal/v1/')}" for path in plan.deletes]
        return lines

    def _print(self, plan: Plan) -> list[str]:
        lines = [f"{event.about.partition('/')[2]} {event.kind}: {event.sentence}" for event in plan.events] or ["nothing"]
        if plan.wake_at_ms is not None:
            lines.append(f"  again in {plan.wake_at_ms - self.cluster.now_ms} ms")
        return lines

    def _agents(self) -> None:
        self.cluster.agents()

    def _settle(self) -> list[str]:
        self.cluster.converge()
        return self._show()

    def _show(self) -> list[str]:
        lines = []
        for name in sorted(self.cluster.docs["nodes"]):
            doc, health = self.cluster.docs["assignments"].get(name), self.cluster.docs["health"].get(name)
            held = [
                _held(entry.name, slot.slot, slot.version) for entry in (doc.services if doc else ()) for slot in entry.replicas
            ]
            lines.append(f"{name} {health.state if health else 'unreachable'}: {' '.join(sorted(held)) or '-'}")
        for name, decision in sorted(self.cluster.docs["decisions"].items()):
            lines += [f"{name}.{slot} waits: {why}" for slot, why in decision.waiting]
            lines += [f"{name}: {note}" for note in decision.notes]
        return lines


def _difference(before: AssignmentDoc | None, after: AssignmentDoc) -> list[str]:
    old = {(entry.name, slot) for entry in (before.services if before else ()) for slot in entry.replicas}
    new = {(entry.name, slot) for entry in after.services for slot in entry.replicas}
    texts = sorted(["- " + _held(name, s.slot, s.version) for name, s in old - new])
    texts += sorted(["+ " + _held(name, s.slot, s.version) for name, s in new - old])
    return [f"  {after.node} generation {after.generation}: {', '.join(texts)}"]


def _held(service: str, slot: int, version: int) -> str:
    return f"{service}.{slot}" + (f"@v{version}" if version > 1 else "")


def _split(words: tuple[str, ...]) -> tuple[list[str], dict[str, Any]]:
    """Bare words, and `name=value` options."""
    return [word for word in words if "=" not in word], dict(word.split("=", 1) for word in words if "=" in word)


def _port(text: str) -> Port:
    mode: Literal["ingress", "host"] = "host" if text.startswith("host:") else "ingress"
    published, _, target = text.removeprefix("host:").rpartition(":")
    low, _, high = published.partition("-")
    return Port(int(target), int(low or 0), mode=mode, published_end=int(high or 0))


def _amount(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else int(text)
