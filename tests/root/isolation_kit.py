"""Two nodes with networks and containers, and a machine outside, each a network namespace of the test's own.

Networks: a, b, inner (internal); a and inner have IPv6. Containers: a1, a3, b1, i1 on n1; a2, b2 on n2.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_PACKET, IPPROTO_IPV6, IPV6_V6ONLY, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, htons
from socket import socket as Socket
from typing import Any, Final, TypeVar

from agent.network import namespaces
from model.addresses import embedded, mac_of
from tests.root.spaces import Space

ETH_P_ALL: Final = 3
T = TypeVar("T")
VNI: Final = {"a": 4097, "b": 4098, "inner": 4099}
SUBNET: Final = {"a": "10.77", "b": "10.78", "inner": "10.79"}
PREFIX6: Final = {"a": "fd00:a::/96", "inner": "fd00:c::/96"}
UNDERLAY: Final = {"n1": "192.0.2.1", "n2": "192.0.2.2", "out": "192.0.2.9"}
UNDERLAY6: Final = {name: f"fd00:99::{address.rsplit('.')[-1]}" for name, address in UNDERLAY.items()}
GUARDED: Final = ["192.0.2.1:7443", "192.0.2.2:7443", "192.0.2.9:7070", "[fd00:99::9]:7070"]
PLACES: Final = {
    "a1": ("n1", "a"),
    "a3": ("n1", "a"),
    "b1": ("n1", "b"),
    "i1": ("n1", "inner"),
    "a2": ("n2", "a"),
    "b2": ("n2", "b"),
}


class Driver:
    """A KernelNetwork in a process in `space`."""

    def __init__(self, space: Space, name: str, run_dir: Path) -> None:
        argv = ["nsenter", f"--net={space.path}", "setpriv", "--pdeathsig", "KILL", sys.executable]
        argv += ["-m", "tests.root.network_node", str(run_dir), UNDERLAY[name]]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def __call__(self, do: str, **rest: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **rest}) + "\n")
        self._process.stdin.flush()
        return self._answer()["ok"]

    def stop(self) -> None:
        self("close", remove=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()


class Container:
    """`address6` is empty on networks without IPv6."""

    def __init__(self, path: str, network: str, address: str) -> None:
        self.path, self.network, self.address = path, network, address
        self.mac = mac_of(address, VNI[network])
        self.address6 = embedded(PREFIX6[network], address) if network in PREFIX6 else ""

    def inside(self, work: Callable[[], T]) -> T:
        return namespaces.enter(self.path, work)


class Place:
    def __init__(self, spaces: dict[str, Space], stack: contextlib.ExitStack) -> None:
        self.spaces = spaces
        self.drivers: dict[str, Driver] = {}
        self.containers: dict[str, Container] = {}
        self._stack = stack

    def where(self, name: str) -> Callable[[Callable[[], T]], T]:
        return self.containers[name].inside if name in self.containers else self.spaces[name].inside

    def socket(self, name: str, family: int, kind: int, protocol: int = 0) -> Socket:
        """A socket in that container or machine; closed with the test."""
        made: Socket = self.where(name)(lambda: Socket(family, kind, protocol))
        made.settimeout(5)
        return self._stack.enter_context(made)

    def listen(self, name: str, port: int, *, tcp: bool = False) -> Socket:
        """On every address of that container or machine, IPv6 too."""
        made = self.socket(name, AF_INET6, SOCK_STREAM if tcp else SOCK_DGRAM)
        made.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
        made.bind(("::", port))
        if tcp:
            made.listen(64)
        return made

    def send(self, name: str, address: str, port: int, payload: bytes) -> None:
        family = AF_INET6 if ":" in address else AF_INET
        with contextlib.suppress(OSError):
            self.socket(name, family, SOCK_DGRAM).sendto(payload, (address, port))

    def raw(self, name: str, frame: bytes, times: int = 20) -> None:
        """Put the frame on that container's eth0."""
        made = self.socket(name, AF_PACKET, SOCK_RAW)
        made.bind(("eth0", 0))
        for _ in range(times):
            made.send(frame)

    def capture(self, name: str, link: str) -> Socket:
        """Every frame that comes in by that link."""
        made = self.socket(name, AF_PACKET, SOCK_RAW, htons(ETH_P_ALL))
        made.bind((link, ETH_P_ALL))
        return made

    def call(self, name: str, address: str, port: int) -> Socket:
        """Begins a TCP connection, without waiting for it."""
        made = self.socket(name, AF_INET6 if ":" in address else AF_INET, SOCK_STREAM)
        made.setblocking(False)
        with contextlib.suppress(OSError):
            made.connect((address, port))
        return made


def gateway(network: str, node: str) -> str:
    return f"{SUBNET[network]}.{node[1:]}.1"


def gateway6(network: str, node: str) -> str:
    return embedded(PREFIX6[network], gateway(network, node))


def vtep(network: str, node: str) -> str:
    return f"{SUBNET[network]}.{node[1:]}.0"


def payloads(listener: Socket, last: bytes) -> list[bytes]:
    """What came before `last`, which must come."""
    found = []
    while (got := listener.recv(2048)) != last:
        found.append(got)
    return found


def _networks(node: str, other: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name, "vni": vni, "subnet": f"{SUBNET[name]}.0.0/16", "slice": f"{SUBNET[name]}.{node[1:]}.0/24",
            "peers": [{"node": other, "underlay": UNDERLAY[other], "slice": f"{SUBNET[name]}.{other[1:]}.0/24"}],
            "internal": name == "inner", "prefix6": PREFIX6.get(name, ""),
        }
        for name, vni in VNI.items()
    ]  # fmt: skip


@contextlib.contextmanager
def place(tmp_path: Path) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        spaces = {name: stack.enter_context(Space()) for name in ("switch", *UNDERLAY)}
        made = Place(spaces, stack)
        spaces["switch"].sh("ip link add br0 up type bridge")
        for name, address in UNDERLAY.items():
            spaces["switch"].sh(f"ip link add {name} up master br0 type veth peer name up0 netns {spaces[name].path}")
            spaces[name].sh(f"ip address add {address}/24 dev up0\nip address add {UNDERLAY6[name]}/64 dev up0 nodad")
            spaces[name].sh("ip link set up0 up")
        for name, other in (("n1", "n2"), ("n2", "n1")):
            driver = made.drivers[name] = Driver(spaces[name], name, tmp_path / name)
            stack.callback(driver.stop)
            driver("apply", networks=_networks(name, other))
            driver("guard", addresses=GUARDED)
        for number, (name, (node, network)) in enumerate(PLACES.items()):
            got = made.drivers[node]("attach", id=f"{number:064x}"[::-1], networks=[network])
            made.containers[name] = Container(got["netns_path"], network, got["addresses"][0][1].split("/")[0])
        yield made
