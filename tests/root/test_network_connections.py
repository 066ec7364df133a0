"""Connection tracking asked and changed over netlink, against the kernel of a namespace of its own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from agent.network.nfnl import Conntrack, Nfnetlink
from agent.plan import nfnl
from agent.plan.balance_rules import OPEN
from tests.root.spaces import Space

pytestmark = pytest.mark.root

RULES = f"""
table inet t {{
 chain out {{ type nat hook output priority -100;
  ip daddr 127.9.9.9 udp dport 53 dnat ip to 127.0.0.2
  ip daddr 127.9.9.9 tcp dport 80 dnat ip to 127.0.0.2
  ip6 daddr fd00::9 udp dport 53 dnat ip6 to fd00::2
  ip6 daddr fd00::9 tcp dport 80 dnat ip6 to fd00::2
 }}
 chain marked {{ type filter hook postrouting priority 0;
  tcp dport 80 ct mark set {OPEN | 1:#x}
 }}
}}
"""


@pytest.fixture
def space() -> Iterator[Space]:
    with Space() as made:
        made.sh("ip address add fd00::2/128 dev lo nodad\nip address add fd00::1/128 dev lo nodad")
        made.sh("ip -6 route add fd00::9/128 dev lo")
        code, out = made.run("nft -f -", RULES)
        assert code == 0, out
        yield made


@pytest.fixture
def conntrack(space: Space) -> Iterator[Conntrack]:
    with contextlib.closing(space.inside(Conntrack)) as made:
        yield made


def udp(space: Space, address: str, port: int) -> socket.socket:
    """A client that has sent one datagram there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = space.inside(lambda: socket.socket(family, socket.SOCK_DGRAM))
    made.sendto(b"x", (address, port))
    return made


def receiver(space: Space, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = space.inside(lambda: socket.socket(family, socket.SOCK_DGRAM))
    made.settimeout(5)
    made.bind((address, port))
    return made


@pytest.mark.parametrize(("vip", "backend"), [("127.9.9.9", "127.0.0.2"), ("fd00::9", "fd00::2")])
def test_datagrams_to_a_removed_backend_begin_anew(space: Space, conntrack: Conntrack, vip: str, backend: str) -> None:
    with receiver(space, backend, 53) as server, udp(space, vip, 53) as client, udp(space, backend, 53):
        for _ in range(2):
            server.recv(10)
        assert conntrack.delete(nfnl.UDP, reply_source=backend, reply_source_port=99) == 0
        assert conntrack.delete(nfnl.TCP, reply_source=backend) == 0
        assert conntrack.delete(nfnl.UDP, reply_source=backend, original_target=vip, original_target_port=53) == 1
        assert conntrack.delete(nfnl.UDP, reply_source=backend, original_target=vip) == 0
        space.sh("nft flush chain inet t out")
        with receiver(space, "::1" if ":" in vip else "127.0.0.3", 53):
            client.sendto(b"again", (vip, 53))
        assert conntrack.delete(nfnl.UDP, reply_source=backend) == 1, "the direct one is still there, the old choice is not"


def test_open_connections_are_counted_until_the_replica_closes(space: Space, conntrack: Conntrack) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(space.inside(socket.socket))
        listener.settimeout(5)
        listener.bind(("127.0.0.2", 80))
        listener.listen()
        pairs = []
        for address in ("127.9.9.9", "127.0.0.2", "127.9.9.9"):
            client = stack.enter_context(space.inside(socket.socket))
            client.connect((address, 80))
            pairs.append((client, stack.enter_context(listener.accept()[0])))
        wanted = ["127.0.0.2", "127.9.9.9", "127.0.0.3"]
        assert conntrack.open_connections(wanted) == {"127.0.0.2": 3, "127.9.9.9": 2, "127.0.0.3": 0}
        pairs[0][1].shutdown(socket.SHUT_WR)
        assert pairs[0][0].recv(1) == b""
        assert conntrack.open_connections(wanted)["127.0.0.2"] == 2, "the replica is done with it"
        pairs[1][0].shutdown(socket.SHUT_WR)
        assert pairs[1][1].recv(1) == b""
        assert conntrack.open_connections(wanted)["127.0.0.2"] == 2, "it may still answer"
        pairs[1][1].close()
        pairs[2][0].close()
        assert pairs[2][1].recv(1) == b""
        pairs[2][1].close()
        assert conntrack.open_connections(wanted) == {"127.0.0.2": 0, "127.9.9.9": 0, "127.0.0.3": 0}


def test_open_connections_that_were_balanced_are_counted_in_one_pass(space: Space, conntrack: Conntrack) -> None:
    """Of both families, beside direct ones and datagrams, which look otherwise."""
    with contextlib.ExitStack() as stack:

        def listener(address: str) -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            made = stack.enter_context(space.inside(lambda: socket.create_server((address, 80), family=family)))
            made.settimeout(5)
            return made

        def connected(server: socket.socket, address: str) -> tuple[socket.socket, socket.socket]:
            client = stack.enter_context(space.inside(lambda: socket.socket(server.family)))
            client.connect((address, 80))
            return client, stack.enter_context(server.accept()[0])

        assert conntrack.balanced(six=True) == {}
        four, six = listener("127.0.0.2"), listener("fd00::2")
        pairs = [connected(four, address) for address in ["127.9.9.9"] * 5 + ["127.0.0.2"]]
        pairs += [connected(six, address) for address in ["fd00::9"] * 3 + ["fd00::2"]]
        stack.enter_context(udp(space, "127.9.9.9", 53))
        assert conntrack.balanced(six=False) == {"127.0.0.2": 5}
        assert conntrack.balanced(six=True) == {"127.0.0.2": 5, "fd00::2": 3}
        for client, server in (pairs[0], pairs[6]):
            client.shutdown(socket.SHUT_WR)
            assert server.recv(1) == b""
        assert conntrack.balanced(six=True) == {"127.0.0.2": 5, "fd00::2": 3}, "the replica may still answer"
        for client, server in (pairs[1], pairs[7]):
            server.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
        assert conntrack.balanced(six=True) == {"127.0.0.2": 4, "fd00::2": 2}, "the replica is done with it"
        space.sh("nft flush chain inet t marked")
        pairs += [connected(four, "127.9.9.9"), connected(six, "fd00::9")]
        assert conntrack.balanced(six=True) == {"127.0.0.2": 4, "fd00::2": 2}, "without the mark"
        for client, server in pairs:
            client.close()
            assert server.recv(1) == b""
            server.close()
        assert conntrack.balanced(six=True) == {}


def test_one_connection_is_found_among_many_without_copying_them(space: Space, conntrack: Conntrack) -> None:
    with receiver(space, "127.0.0.2", 53):
        for number in range(50):
            udp(space, f"127.1.0.{number + 1}", 1000).close()
        udp(space, "127.0.0.2", 53).close()
        with contextlib.closing(space.inside(Nfnetlink)) as asked:
            assert len(asked.dump(nfnl.dump_connections(nfnl.UDP, reply=nfnl.Side(source="127.0.0.2")))) == 1
            assert len(asked.dump(nfnl.dump_connections(nfnl.UDP))) == 51
