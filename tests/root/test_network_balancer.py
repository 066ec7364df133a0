"""The load balancer in the real kernel: two nodes, their containers and a stranger, each in a network namespace of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from model.addresses import embedded
from tests.root.balance_lab import CONTAINERS, PREFIX6, UNDERLAY, Lab

pytestmark = pytest.mark.root

VIP, VIP6 = "10.64.192.7", embedded(PREFIX6, "10.64.192.7")
N1, N2 = UNDERLAY["n1"], UNDERLAY["n2"]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        made.nodes["n1"].networks("one", "two")
        yield made
        for name, node in made.nodes.items():
            node("close", remove=True)
            assert "shoal" not in made.run(name, "nft", "list", "tables")


def service(*names: str, unready: tuple[str, ...] = (), ports: Any = (), vip: str = VIP) -> dict[str, Any]:
    rows = [
        {"replica": f"shop_web.{name}", "address": address, "node": node, "ready": name not in unready, "network": network,
         "underlay": UNDERLAY[node]}
        for name, (node, network, address) in CONTAINERS.items() if name in (*names, *unready)
    ]  # fmt: skip
    return {"service_id": "1", "name": "shop_web", "vip": vip, "endpoints": rows, "ports": ports}


def port(published: int, target: int = 80, **rest: Any) -> dict[str, Any]:
    return {"target": target, "published": published, **rest}


def soon(ask: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """Ports of mode host are served a moment after they are taken."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            return ask()
    raise AssertionError("nobody answers")


def init_of(source_port: int, target_port: int) -> bytes:
    """An SCTP packet that asks for an association, with its checksum (CRC32c)."""
    init = struct.pack(">BBHIIHHI", 1, 0, 20, 7, 65536, 1, 1, 7)
    packet = struct.pack(">HHII", source_port, target_port, 0, 0) + init
    crc = 0xFFFFFFFF
    for byte in packet:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return packet[:8] + struct.pack("<I", crc ^ 0xFFFFFFFF) + packet[12:]


def test_a_services_address_spreads_over_its_ready_replicas_on_all_nodes(lab: Lab) -> None:
    lab.nodes["n1"].told("one", service("a1", "a2", "b1", unready=("a3",)))
    assert lab.asked("a3", VIP, 80) == {"a1", "a2", "b1"}
    assert lab.asked("a3", VIP, 53, "udp") == {"a1", "a2", "b1"}
    assert lab.ask("a3", VIP, 80)[1] == "10.64.1.4"
    lab.nodes["n1"].told("one", service("a2"))
    assert lab.asked("a3", VIP, 80, times=6) == {"a2"}
    assert lab.run("a3", "ping", "-c", "1", "-W", "1", VIP)


def test_over_ipv6_too(lab: Lab) -> None:
    lab.nodes["n1"].told("one", service("a1", "a2"), prefix6=PREFIX6)
    lab.nodes["n1"].told("ingress", service("a1", ports=[port(8080)]))
    assert lab.asked("a3", VIP6, 80) == {"a1", "a2"}
    gateway6 = embedded(PREFIX6, "10.64.1.1")
    assert lab.ask("a3", gateway6, 8080) == ("a1", embedded(PREFIX6, "10.64.1.4"))
    assert lab.ask("n1", gateway6, 8080)[0] == "a1"


def test_a_replica_reaches_itself_by_its_services_address(lab: Lab) -> None:
    lab.nodes["n1"].told("one", service("a1"))
    assert lab.ask("a1", VIP, 80) == ("a1", "10.64.1.1")


def test_other_networks_do_not_have_the_address(lab: Lab) -> None:
    lab.nodes["n1"].told("one", service("a1"))
    assert lab.refused("d1", VIP, 80)


def test_without_a_ready_replica_it_is_refused_at_once(lab: Lab) -> None:
    n1 = lab.nodes["n1"]
    n1.told("one", service(unready=("a1",)))
    n1.told("ingress", service(unready=("a1",), ports=[port(8080), port(5300, 53, protocol="udp")]))
    assert lab.refused("a3", VIP, 80)
    assert lab.refused("out", N1, 8080)
    assert lab.refused("n1", "127.0.0.1", 8080)
    assert lab.refused("out", N1, 5300, "udp")


def test_a_call_to_a_sleeping_service_is_held_and_then_served(lab: Lab) -> None:
    n1, ports = lab.nodes["n1"], [port(8080)]
    asleep = {**service(ports=ports), "sleeping": True}
    n1.told("one", asleep, prefix6=PREFIX6)
    n1.told("ingress", asleep)
    ways = [("a3", VIP, 80), ("a3", VIP6, 80), ("out", N1, 8080), ("n1", "127.0.0.1", 8080), ("d1", N1, 8080)]
    with ThreadPoolExecutor(len(ways)) as pool:
        answers = [pool.submit(lab.ask, *way, patience_s=20) for way in ways]
        held: dict[str, int] = {}
        while held != {"1": len(ways)}:
            held = n1("held", beyond=held)
        assert not any(answer.done() for answer in answers)
        n1.told("ingress", service("a1", ports=ports))
        n1.told("one", service("a1"), prefix6=PREFIX6)
        assert n1("held", beyond=held) == {}
        assert {answer.result()[0] for answer in answers} == {"a1"}
        assert answers[0].result()[1] == "10.64.1.4", "the replica sees its client as if nothing had been"


def test_an_agent_that_begins_anew_goes_on_holding(lab: Lab) -> None:
    n1 = lab.nodes["n1"]
    asleep = {**service(), "sleeping": True}
    n1.told("one", asleep)
    n1.stop()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lab.ask, "a3", VIP, 80, patience_s=20)
        n1.start("one", "two")
        n1.told("one", asleep)
        assert n1("held", beyond={}) == {"1": 1}
        n1.told("one", service("a1"))
        assert answer.result()[0] == "a1"


def test_a_published_port_answers_outside_and_on_the_node_itself(lab: Lab) -> None:
    lab.nodes["n1"].told("ingress", service("a1", "b1", ports=[port(8080), port(5300, 53, protocol="udp")]))
    assert lab.asked("out", N1, 8080) == {"a1", "b1"}
    assert lab.asked("out", N1, 5300, "udp") == {"a1", "b1"}
    for host in ("127.0.0.1", N1):
        assert lab.asked("n1", host, 8080) == {"a1", "b1"}
        assert lab.asked("n1", host, 5300, "udp") == {"a1", "b1"}
    assert lab.asked("d1", N1, 8080) == {"a1", "b1"}


def test_a_local_replica_sees_the_client_a_remote_one_the_node(lab: Lab) -> None:
    n1 = lab.nodes["n1"]
    n1.told("ingress", service("a1", ports=[port(8080)]))
    assert lab.ask("out", N1, 8080) == ("a1", UNDERLAY["out"])
    n1.told("ingress", service("b1", ports=[port(8080)]))
    assert lab.ask("out", N1, 8080) == ("b1", "10.64.1.0")


def test_local_ports_keep_the_client_and_answer_only_where_a_replica_is(lab: Lab) -> None:
    for name in ("n1", "n2"):
        lab.nodes[name].networks("one")
        lab.nodes[name].told("ingress", service("a1", ports=[port(8080, local=True)]))
    assert lab.ask("out", N1, 8080) == ("a1", UNDERLAY["out"])
    assert lab.refused("out", N2, 8080)


def test_sctp_is_balanced_also_where_the_kernel_has_no_sockets_of_it(lab: Lab) -> None:
    lab.nodes["n1"].told("ingress", service("a1", ports=[port(9899, 9900, protocol="sctp")]))
    kind = socket.SOCK_RAW
    with lab.socket("a1", socket.AF_INET, kind, 132) as replica, lab.socket("out", socket.AF_INET, kind, 132) as client:
        client.sendto(init_of(5000, 9899), (N1, 0))
        packet, peer = replica.recvfrom(200)
    assert struct.unpack_from(">HH", packet, 20) == (5000, 9900)
    assert peer[0] == UNDERLAY["out"]


def test_a_node_outside_the_network_answers_through_the_replicas_node(lab: Lab) -> None:
    for node in lab.nodes.values():
        node.told("ingress", service("a1", "a2", ports=[port(8080), port(5300, 53, protocol="udp")]))
    assert lab.asked("out", N2, 8080) == {"a1", "a2"}
    assert lab.ask("out", N2, 8080)[1] == N2
    assert lab.asked("out", N2, 5300, "udp") == {"a1", "a2"}
    assert lab.asked("n2", "127.0.0.1", 8080) == {"a1", "a2"}


def test_a_port_of_one_address_answers_only_there(lab: Lab) -> None:
    n1 = lab.nodes["n1"]
    n1.told("ingress", service("a1", ports=[port(8080, host_ip="127.0.0.1"), port(8081, host_ip=N1)]))
    assert lab.ask("n1", "127.0.0.1", 8080)[0] == "a1"
    assert lab.refused("out", N1, 8080)
    assert lab.ask("out", N1, 8081)[0] == "a1"
    assert lab.refused("n1", "127.0.0.1", 8081)


def test_nobody_outside_reaches_loopback(lab: Lab) -> None:
    lab.nodes["n1"].told("ingress", service("a1", ports=[port(8080)]))
    with lab.socket("n1", socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 9))
        own.settimeout(0.3)
        lab.ip("out", f"route add 127.0.0.9/32 via {N1} dev up0")
        lab.run("out", "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        lab.ip("out", "rule add pref 1 to 127.0.0.0/8 lookup main", "route flush table local 127.0.0.0/8")
        with lab.socket("out", socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((UNDERLAY["out"], 0))
            stranger.sendto(b"?", ("127.0.0.9", 9))
        with pytest.raises(TimeoutError):
            own.recv(10)


def test_published_ports_are_held_and_a_taken_one_is_said_once(lab: Lab) -> None:
    n1 = lab.nodes["n1"]
    with lab.socket("n1", socket.AF_INET, socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("", 8080))
        other.listen()
        n1.told("ingress", service("a1", ports=[port(8080), port(8081)]))
        n1("repair")
        sentence = "port 8080/tcp of this node is taken by another program on this node"
        assert n1("said") == [["port-taken", "shop_web", f"{sentence}: this node does not serve service shop_web on it"]]
        with pytest.raises(RuntimeError, match="port 8081/tcp of this node is taken by service shop_web"):
            n1.publish("r", port(8081, protocol="tcp", address="10.64.1.3"))
        with lab.socket("n1", socket.AF_INET, socket.SOCK_STREAM) as second:
            second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                second.bind(("", 8081))
    assert n1("repair") == ["port 8080/tcp is free again and served"]
    assert lab.ask("out", N1, 8080)[0] == "a1"


def test_ports_of_mode_host(lab: Lab) -> None:
    n1 = lab.nodes["n1"]
    web = {"protocol": "tcp", "target": 80, "address": "10.64.1.2"}
    assert n1.publish("one", web | {"published": 8080}) == [8080]
    chosen = n1.publish("two", web, web | {"published": 8000, "published_end": 8002})
    assert 32768 <= chosen[0] < 61000
    assert chosen[1] == 8000
    assert n1.publish("three", web | {"published": 8000, "published_end": 8002}) == [8001]
    assert n1.publish("two", web, web | {"published": 8000, "published_end": 8002}) == chosen
    for number in (8080, *chosen, 8001):
        assert soon(partial(lab.ask, "out", N1, number)) == ("a1", UNDERLAY["out"])
        assert lab.ask("n1", "127.0.0.1", number)[0] == "a1"
    with pytest.raises(RuntimeError, match="port 8080/tcp of this node is taken by replica one"):
        n1.publish("four", web | {"published": 9090}, web | {"published": 8080})
    n1.publish("one")
    assert n1.publish("four", web | {"published": 9090}, web | {"published": 8080}) == [9090, 8080]
    with pytest.raises(RuntimeError, match=r"no address 192\.0\.2\.77"):
        n1.publish("five", web | {"published": 9091, "host_ip": "192.0.2.77"})


def test_a_drained_replica_keeps_its_connections_and_gets_no_new_ones(lab: Lab) -> None:
    n1, place = lab.nodes["n1"], ["one", "10.64.1.2"]
    n1.told("one", service("a1"))
    with lab.talk("a3", VIP, 80) as talk:
        assert talk.ask()[0] == "a1"
        n1.told("one", service("a2"))
        assert lab.asked("a3", VIP, 80, times=6) == {"a2"}
        assert talk.ask()[0] == "a1"
        assert not n1("forgotten", place=place)
        n1("floor", number=2)
        assert n1("forgotten", place=place)
        n1("drained", places=[place], within_s=0.3)
        n1.send("drained", places=[place], within_s=20)
        assert talk.ask()[0] == "a1"
    n1.answer()
    n1("drained", places=[["one", "10.64.1.99"]], within_s=20)


def test_a_udp_client_moves_at_once_when_its_replica_goes(lab: Lab) -> None:
    n1 = lab.nodes["n1"]
    ports = [port(5300, 53, protocol="udp")]
    n1.told("one", service("a1"))
    n1.told("ingress", service("a1", ports=ports))
    with lab.talk("a3", VIP, 53, "udp") as inside, lab.talk("out", N1, 5300, "udp") as outside:
        assert inside.ask()[0] == outside.ask()[0] == "a1"
        n1.told("one", service("a2"))
        n1.told("ingress", service("a2", ports=ports))
        assert inside.ask()[0] == outside.ask()[0] == "a2"


def test_a_udp_client_that_came_before_the_port_was_published_is_served(lab: Lab) -> None:
    with lab.talk("out", N1, 5300, "udp") as early:
        with pytest.raises(ConnectionRefusedError):
            early.ask()
        lab.nodes["n1"].told("ingress", service("a1", ports=[port(5300, 53, protocol="udp")]))
        assert early.ask()[0] == "a1"


def test_counts_are_exact_on_each_way(lab: Lab) -> None:
    n1 = lab.nodes["n1"]
    n1.told("one", service("a1"))
    n1.told("ingress", service("a1", ports=[port(5300, 53, protocol="udp")]))

    def ask_thrice(where: str, host: str, number: int) -> None:
        with lab.talk(where, host, number, "udp") as talk:
            for _ in range(3):
                assert talk.ask()[0] == "a1"

    for where, host, number in (("a3", VIP, 53), ("out", N1, 5300), ("n1", "127.0.0.1", 5300), ("n1", N1, 5300)):
        ask_thrice(where, host, number)
    rows = n1("traffic")
    assert [row["replica"] for row in rows] == ["shop_web.a1"]
    assert (rows[0]["connections"], rows[0]["packets_in"], rows[0]["packets_out"]) == (4, 12, 12)
    assert rows[0]["bytes_in"] == 12 * 29
    n1.told("one", removed=["1"])
    n1.told("ingress", removed=["1"])
    assert n1("traffic")[0]["connections"] == 4
    assert n1("traffic") == []


def test_open_connections_are_known_without_a_look_at_the_kernels_table(lab: Lab) -> None:
    """But for the first: the next may follow half a minute later."""
    n1, ports = lab.nodes["n1"], [port(8080), port(9090, 99)]

    def told(a1: int, b1: int) -> None:
        """What a socket was told to do, the network does a moment later."""
        end, wanted = time.monotonic() + 5, {"shop_web.a1": a1, "shop_web.b1": b1}
        while (found := n1("open")) != wanted:
            assert time.monotonic() < end, (found, wanted)

    ways: list[tuple[str, str, int]] = [("a3", VIP, 80), ("out", N1, 8080), ("n1", "127.0.0.1", 8080)]
    with contextlib.ExitStack() as stack:

        def talks(name: str, other: str, ways: list[tuple[str, str, int]]) -> list[Any]:
            n1.told("one", service(name, unready=(other,)), prefix6=PREFIX6)
            n1.told("ingress", service(name, unready=(other,), ports=ports))
            made = [stack.enter_context(lab.talk(*way)) for way in ways]
            assert {talk.ask()[0] for talk in made} == {name}
            return made

        a1 = talks("a1", "b1", [("a3", VIP6, 80), *ways])
        told(4, 0)
        b1 = talks("b1", "a1", ways)
        told(4, 3)
        assert lab.refused("out", N1, 9090), "nobody listens there"
        told(4, 3)
        a1[0].hang_up()
        a1[1].hang_up()
        told(2, 3)
        b1[0].break_off()
        told(2, 2)
        n1.stop()
        a1[2].hang_up()
        n1.start("one", "two")
        n1.told("one", service("a1", "b1"), prefix6=PREFIX6, whole=True)
        told(1, 2)
        b1[1].hang_up()
        told(1, 1)
    told(0, 0)


def test_two_hops_are_counted_once_where_the_replica_is(lab: Lab) -> None:
    for node in lab.nodes.values():
        node.told("ingress", service("a1", ports=[port(8080)]))
    assert lab.ask("out", N2, 8080)[0] == "a1"
    assert lab.nodes["n2"]("traffic") == []
    assert lab.nodes["n1"]("traffic")[0]["connections"] == 1


def test_a_restarted_agent_takes_its_table_over(lab: Lab) -> None:
    n1 = lab.nodes["n1"]
    n1.told("one", service("a1"), prefix6=PREFIX6)
    n1.told("ingress", service("a1", ports=[port(8080), port(8081, host_ip=N1)]))
    with lab.talk("a3", VIP, 80) as talk, lab.talk("out", N1, 8080) as outside:
        assert talk.ask() == ("a1", "10.64.1.4")
        assert outside.ask()[0] == "a1"
        n1.stop()
        assert talk.ask()[0] == lab.ask("a3", VIP, 80)[0] == "a1"
        n1.start("one", "two")
        assert talk.ask()[0] == outside.ask()[0] == "a1"
        for host, number in ((VIP, 80), (VIP6, 80), (N1, 8080), (N1, 8081)):
            assert lab.ask("a3", host, number)[0] == "a1"
        n1.told("one", service("a2"), whole=True)
        assert lab.ask("a3", VIP, 80)[0] == "a2"
        assert lab.ask("out", N1, 8080)[0] == "a1"
        n1.told("ingress", whole=True)
        assert lab.refused("out", N1, 8080)
        assert talk.ask()[0] == outside.ask()[0] == "a1"


def test_wherever_an_agent_was_killed_the_next_one_leaves_nothing_that_nobody_wants(lab: Lab) -> None:
    n1, heard = lab.nodes["n1"], service("a1", "b1", ports=[port(8080), port(8081, host_ip=N1)])
    web = {"protocol": "tcp", "target": 80, "published": 9090, "address": "10.64.1.2"}
    steps: list[Callable[[], object]] = [
        partial(n1.networks, "one", "two"),
        partial(n1.told, "one", heard, prefix6=PREFIX6, whole=True),
        partial(n1.told, "ingress", heard, whole=True),
        partial(n1.publish, "box", web),
        partial(n1.told, "one", removed=["1"]),
        partial(n1.networks),
    ]
    for killed_after in range(1, len(steps) + 1):
        n1.stop()
        n1.start()
        for number, step in enumerate(steps[:killed_after]):
            step()
            n1("traffic")  # waits for what is being written
            assert held(lab) or number == len(steps) - 1
        n1.stop()
        before = held(lab)
        n1.start()
        n1.told("ingress", whole=True)
        assert held(lab) == {}, (killed_after, before)


def test_a_udp_client_moves_also_when_the_agent_was_killed_before_it_came_to_that(lab: Lab) -> None:
    n1 = lab.nodes["n1"]
    ports = [port(5300, 53, protocol="udp")]
    with lab.talk("a3", VIP, 53, "udp") as inside:
        n1.told("one", service("a1"))
        n1.told("ingress", service("a1", ports=ports))
        with lab.talk("out", N1, 5300, "udp") as outside:
            assert inside.ask()[0] == outside.ask()[0] == "a1"
            n1.stop()
            for name, key, slot in (("backends", VIP, "10.64.1.2"), ("targets", "udp . 5300", "10.64.1.2 . 53")):
                element = f"inet shoal-lb {name} {{ {key} . 0x53480000"
                lab.run("n1", "nft", f"delete element {element} }}; add element {element} : {slot.replace('1.2', '1.3')} }}")
            assert inside.ask()[0] == outside.ask()[0] == "a1", "the tables changed, and what is remembered did not"
            n1.start("one", "two")
            for network in ("two", "one"):
                n1.told(network, *([service("a2")] if network == "one" else []), whole=True)
            n1.told("ingress", service("a2", ports=ports), whole=True)
            assert inside.ask()[0] == outside.ask()[0] == "a2"


def held(lab: Lab) -> dict[str, list[Any]]:
    """Whatever stands in sets and maps of n1's table."""
    rows = json.loads(lab.run("n1", "nft", "-j", "list", "table", "inet", "shoal-lb"))["nftables"]
    bodies = [row.get("set") or row.get("map") for row in rows]
    return {body["name"]: body["elem"] for body in bodies if body and body.get("elem")}


def test_what_somebody_removes_is_back_after_repair_and_counts_go_on(lab: Lab) -> None:
    n1 = lab.nodes["n1"]
    n1.told("one", service("a1"))
    lab.ask("a3", VIP, 80)
    assert n1("repair") == []
    lab.run("n1", "nft", "flush", "map", "inet", "shoal-lb", "backends")
    assert any("map backends" in sentence for sentence in n1("repair"))
    assert lab.ask("a3", VIP, 80)[0] == "a1"
    assert n1("traffic")[0]["connections"] == 2
    lab.run("n1", "nft", "delete", "table", "inet", "shoal-lb")
    assert any("was gone" in sentence for sentence in n1("repair"))
    assert lab.ask("a3", VIP, 80)[0] == "a1"
    lab.run("n1", "nft", "delete", "table", "inet", "shoal-lb")
    n1.told("one", service("a2"))
    assert lab.ask("a3", VIP, 80)[0] == "a2"
    assert n1("repair") == []
