"""Namespaces for the load balancer's tests: two nodes and a stranger on one wire, containers that tell who asked them.

Rules: every namespace has a name of its own run; what listens and asks are sockets of this process, made inside the namespaces.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import selectors
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from agent.network.namespaces import enter
from agent.plan.network import LinkPlan
from model import codec
from model.addresses import embedded

PREFIX6 = "fd00:1::/96"
NETS = {"one": ("10.64.0.0/16", 1), "two": ("10.65.0.0/16", 2)}
UNDERLAY = {"n1": "192.0.2.1", "n2": "192.0.2.2", "out": "192.0.2.100"}
CONTAINERS = {
    "a1": ("n1", "one", "10.64.1.2"), "a2": ("n1", "one", "10.64.1.3"), "a3": ("n1", "one", "10.64.1.4"),
    "b1": ("n2", "one", "10.64.2.2"), "d1": ("n1", "two", "10.65.1.2"),
}  # fmt: skip
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def plan(node: str, network: str) -> LinkPlan:
    subnet, vni = NETS[network]
    base = f"{subnet.rsplit('.', 2)[0]}.{node[1]}"
    return LinkPlan(
        network, f"shb-{vni}", "", f"{base}.1/24", f"shx-{vni}", vni, f"{base}.0", subnet=subnet,
        prefix6=PREFIX6 if network == "one" else "",
    )  # fmt: skip


class Node:
    """A balancer process in a node's namespace, spoken to by lines of JSON."""

    def __init__(self, netns: str, name: str) -> None:
        self._argv = ["nsenter", f"--net=/run/netns/{netns}", "setpriv", "--pdeathsig", "KILL"]
        self._argv += [sys.executable, "-m", "tests.root.balance_node", name]
        self._name = name
        self.start()

    def start(self, *networks: str) -> None:
        self.process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "{}\n"
        self.number = 0
        self.networks(*networks)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __call__(self, do: str, **rest: Any) -> Any:
        self.send(do, **rest)
        return self.answer()

    def send(self, do: str, **rest: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **rest}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["ok"]

    def networks(self, *names: str) -> None:
        self("networks", plans=[codec.to_plain(plan(self._name, name)) for name in names])

    def told(self, network: str, *services: dict[str, Any], **rest: Any) -> None:
        """Tell it, and wait until it has followed."""
        self.number += 1
        self("take", message={"network": network, "whole": False, "services": services, "number": self.number, **rest})
        self("applied", beyond=self.number - 1)

    def publish(self, sandbox: str, *ports: dict[str, Any]) -> list[int]:
        found: list[int] = self("publish", sandbox=sandbox, ports=ports)
        return found


class Lab:
    """`with Lab() as lab`: everything up; `lab.nodes["n1"]` are the balancers."""

    def __init__(self) -> None:
        self._tag = f"shlb-{secrets.token_hex(3)}"
        self._stack = contextlib.ExitStack()
        self._selector = selectors.DefaultSelector()
        self._stopped = threading.Event()
        self.nodes: dict[str, Node] = {}

    def __enter__(self) -> Lab:
        with contextlib.ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def space(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _build(self, stack: contextlib.ExitStack) -> None:
        for name in ("sw", *UNDERLAY, *CONTAINERS):
            sh("ip", "netns", "add", self.space(name))
            stack.callback(subprocess.run, ["ip", "netns", "del", self.space(name)], check=False)
        self.ip("sw", "link add br0 up type bridge")
        for name, address in UNDERLAY.items():
            self.ip(name, "link set lo up")
            self.ip("sw", f"link add {name} up master br0 type veth peer name up0 netns {self.space(name)}")
            self.ip(name, f"address add {address}/24 dev up0", "link set up0 up")
        for node in ("n1", "n2"):
            for network in NETS:
                self._network(node, network)
        for name, (node, network, address) in CONTAINERS.items():
            self._container(name, node, network, address)
        stack.callback(self._selector.close)
        for name, (_, _, address) in CONTAINERS.items():
            self._listen(stack, name, address)
        thread = threading.Thread(target=self._serve)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self._stopped.set)
        for node in ("n1", "n2"):
            self.nodes[node] = Node(self.space(node), node)
            stack.callback(self.nodes[node].stop)

    def _network(self, node: str, network: str) -> None:
        wanted, other = plan(node, network), {"n1": "n2", "n2": "n1"}[node]
        ends = f"remote {UNDERLAY[other]} local {UNDERLAY[node]} dstport 4789"
        far = plan(other, network)
        self.run(node, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0")
        self.run(node, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.default.accept_dad=0")
        self.run(node, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")
        self.ip(
            node,
            f"link add {wanted.bridge} up type bridge",
            f"address add {wanted.gateway} dev {wanted.bridge}",
            f"link add {wanted.vxlan} up type vxlan id {wanted.vni} {ends}",
            f"address add {wanted.vtep}/32 dev {wanted.vxlan}",
            f"route add {far.vtep.removesuffix('.0')}.0/24 via {far.vtep} dev {wanted.vxlan} onlink",
            f"route add unreachable {wanted.subnet} metric 4000000000",
        )
        if wanted.prefix6:
            gateway = embedded(wanted.prefix6, wanted.gateway.split("/")[0])
            self.ip(node, f"address add {gateway}/120 dev {wanted.bridge} nodad")

    def _container(self, name: str, node: str, network: str, address: str) -> None:
        wanted = plan(node, network)
        gateway = wanted.gateway.split("/")[0]
        self.ip(node, f"link add shv-{name} up master {wanted.bridge} type veth peer name eth0 netns {self.space(name)}")
        self.ip(node, f"link set shv-{name} type bridge_slave isolated on")
        self.ip(name, "link set lo up", "link set eth0 up", f"address add {address}/16 dev eth0 noprefixroute")
        self.ip(name, f"route add {gateway} dev eth0 scope link", f"route add default via {gateway}")
        if wanted.prefix6:
            gateway6 = embedded(wanted.prefix6, gateway)
            self.run(name, "sysctl", "-qw", "net.ipv6.conf.all.accept_redirects=0", "net.ipv6.conf.eth0.accept_redirects=0")
            self.ip(name, f"address add {embedded(wanted.prefix6, address)}/96 dev eth0 nodad noprefixroute")
            self.ip(name, f"route add {gateway6} dev eth0", f"route add default via {gateway6}")

    def ip(self, where: str, *commands: str) -> None:
        argv = ["ip", "-n", self.space(where), "-batch", "-"]
        subprocess.run(argv, input="\n".join(commands), check=True, capture_output=True, text=True)

    def run(self, where: str, *argv: str) -> str:
        return sh("nsenter", f"--net=/run/netns/{self.space(where)}", *argv)

    # -- those who answer

    def _listen(self, stack: contextlib.ExitStack, name: str, address: str) -> None:
        for family, host in ((socket.AF_INET, address), (socket.AF_INET6, embedded(PREFIX6, address))):
            if family == socket.AF_INET6 and CONTAINERS[name][1] != "one":
                continue
            for protocol, kind in KINDS.items():
                made = self.socket(name, family, kind)
                stack.callback(made.close)
                made.bind((host, {"tcp": 80, "udp": 53}[protocol]))
                if protocol == "tcp":
                    made.listen(64)
                self._selector.register(made, selectors.EVENT_READ, name)

    def _serve(self) -> None:
        talking: list[socket.socket] = []
        while not self._stopped.is_set():
            for key, _ in self._selector.select(0.05):
                made, name = key.fileobj, key.data
                assert isinstance(made, socket.socket)
                if made.type == socket.SOCK_DGRAM:
                    _, peer = made.recvfrom(100)
                    made.sendto(f"{name} {peer[0]}".encode(), peer)
                elif made in talking:
                    self._talk(made, name, talking)
                else:
                    talking.append(made.accept()[0])
                    self._selector.register(talking[-1], selectors.EVENT_READ, name)
        for made in talking:
            made.close()

    def _talk(self, made: socket.socket, name: str, talking: list[socket.socket]) -> None:
        try:
            heard = made.recv(100)
        except OSError:
            heard = b""
        if heard:
            made.sendall(f"{name} {made.getpeername()[0]}".encode())
        else:
            self._selector.unregister(made)
            talking.remove(made)
            made.close()

    # -- those who ask

    def socket(self, where: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
        made: socket.socket = enter(f"/run/netns/{self.space(where)}", lambda: socket.socket(family, kind, protocol))
        made.settimeout(2)
        return made

    @contextlib.contextmanager
    def talk(self, where: str, host: str, port: int, protocol: str = "tcp", patience_s: float = 2.0) -> Iterator[Talk]:
        made = self.socket(where, socket.AF_INET6 if ":" in host else socket.AF_INET, KINDS[protocol])
        with made:
            made.settimeout(patience_s)
            made.connect((host, port))
            yield Talk(made)

    def ask(self, where: str, host: str, port: int, protocol: str = "tcp", patience_s: float = 2.0) -> tuple[str, str]:
        """One connection: who answered, and who it was asked by as it saw it."""
        with self.talk(where, host, port, protocol, patience_s) as talk:
            return talk.ask()

    def asked(self, where: str, host: str, port: int, protocol: str = "tcp", *, times: int = 24) -> set[str]:
        return {self.ask(where, host, port, protocol)[0] for _ in range(times)}

    def refused(self, where: str, host: str, port: int, protocol: str = "tcp") -> bool:
        try:
            self.ask(where, host, port, protocol)
        except OSError as error:
            return not isinstance(error, TimeoutError)
        return False


class Talk:
    """One connection of a client."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made

    def ask(self) -> tuple[str, str]:
        self._socket.sendall(b"?")
        name, _, seen = self._socket.recv(100).decode().partition(" ")
        return name, seen

    def hang_up(self) -> None:
        """Says that it is done; the other side then closes."""
        self._socket.shutdown(socket.SHUT_WR)
        assert self._socket.recv(1) == b""

    def break_off(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def sh(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
