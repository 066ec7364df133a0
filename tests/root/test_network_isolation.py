"""What a hostile container can send, against the kernel: nothing of it is delivered, and what is honest is.

Every test sends something honest last, by the same way, and waits for that: what had not arrived by then was dropped.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.addresses import mac_of
from tests.root import frames
from tests.root.isolation_kit import SUBNET, UNDERLAY, UNDERLAY6, VNI, Place, gateway, gateway6, payloads, place, vtep

pytestmark = pytest.mark.root

TO_GATEWAY = mac_of(gateway("a", "n1"), VNI["a"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(Path(tmp_path_factory.mktemp("isolation"))) as found:
        yield found


@pytest.mark.parametrize("target", ["a2", "a3", "n1"])
def test_datagrams_with_another_s_address_are_not_delivered(made: Place, target: str) -> None:
    a1, a3 = made.containers["a1"], made.containers["a3"]
    listener = made.listen(target, 5001)
    to = gateway("a", "n1") if target == "n1" else made.containers[target].address

    def packet(source: str, payload: bytes) -> tuple[int, bytes]:
        return frames.udp(source, to, 5001, payload)

    for source in (a3.address, gateway("a", "n1"), made.containers["a2"].address, made.containers["b1"].address, "8.8.8.8"):
        made.raw("a1", frames.ether(TO_GATEWAY, a1.mac, *packet(source, b"address")))
    made.raw("a1", frames.ether(TO_GATEWAY, a3.mac, *packet(a3.address, b"both")))
    made.raw("a1", frames.ether(TO_GATEWAY, a3.mac, *packet(a1.address, b"mac")))
    made.raw("a1", frames.ether(TO_GATEWAY, a1.mac, *packet(a3.address, b"tagged"), tag=0))
    made.raw("a1", frames.ether(TO_GATEWAY, a1.mac, *packet(a1.address, b"tagged"), tag=5))
    for last in range(16):
        made.raw("a1", frames.ether(f"01:80:c2:00:00:{last:02x}", a1.mac, *packet(a3.address, b"beside the bridge")))
    made.raw("a1", frames.ether(frames.BROADCAST, a1.mac, *packet(a3.address, b"broadcast")))
    made.raw("a1", frames.ether(a3.mac, a1.mac, *packet(a1.address, b"past the node")) if target == "a3" else b"\0" * 60)
    made.raw("a1", frames.ether(TO_GATEWAY, a1.mac, *packet(a1.address, b"honest")), times=1)
    assert payloads(listener, b"honest") == []


def test_ipv6_datagrams_with_another_s_address_are_not_delivered(made: Place) -> None:
    a1, a2, a3 = (made.containers[name] for name in ("a1", "a2", "a3"))
    listener = made.listen("a2", 5002)
    for source in (a3.address6, a2.address6, "fd00:b::1", "fe80::1"):
        made.raw("a1", frames.ether(TO_GATEWAY, a1.mac, *frames.udp(source, a2.address6, 5002, b"spoofed")))
    made.raw("a1", frames.ether(TO_GATEWAY, a3.mac, *frames.udp(a1.address6, a2.address6, 5002, b"mac")))
    made.raw("a1", frames.ether(TO_GATEWAY, a1.mac, *frames.udp(a1.address6, a2.address6, 5002, b"honest")), times=1)
    assert payloads(listener, b"honest") == []


def test_neither_arp_of_others_nor_strange_frames_come_through(made: Place) -> None:
    a1, a3 = made.containers["a1"], made.containers["a3"]
    seen, beside = made.capture("n1", f"shb-{VNI['a']}"), made.capture("a3", "eth0")
    for operation in (1, 2):
        for sender_mac, sender in (
            (a1.mac, a3.address),
            (a1.mac, gateway("a", "n1")),
            (a3.mac, a3.address),
            (a3.mac, a1.address),
        ):
            for source in (a1.mac, a3.mac):
                claim = frames.arp(operation, sender_mac, sender, gateway("a", "n1"))
                if (source, sender_mac, sender) != (a1.mac, a1.mac, a1.address):
                    made.raw("a1", frames.ether(frames.BROADCAST, source, 0x0806, claim))
    for kind in (0x88CC, 0x8847, 0x88A8, 0x0027):
        made.raw("a1", frames.ether(frames.BROADCAST, a1.mac, kind, b"\0" * 60))
    made.raw("a1", frames.ether("01:80:c2:00:00:00", a1.mac, 0x0026, b"\x42\x42\x03" + b"\0" * 35))
    claim = frames.arp(1, a3.mac, a3.address, gateway("a", "n1"))
    for last in range(16):
        made.raw("a1", frames.ether(f"01:80:c2:00:00:{last:02x}", a1.mac, 0x0806, claim))
    honest = frames.ether(frames.BROADCAST, a1.mac, 0x0806, frames.arp(1, a1.mac, a1.address, gateway("a", "n1")))
    made.raw("a1", honest, times=1)
    from_a1 = payloads(seen, honest)
    assert [frame for frame in from_a1 if frame[6:12] in (frames.mac(a1.mac), frames.mac(a3.mac))] == []
    assert "dev shv-" not in made.spaces["n1"].sh("ip neighbour"), "beside the bridge"
    made.send("n1", a3.address, 9, b"last")
    while not (got := beside.recv(2048)).endswith(b"last"):
        assert got[6:12] != frames.mac(a1.mac), "a frame from container to container"


def test_containers_neither_advertise_nor_redirect(made: Place) -> None:
    a1, a3 = made.containers["a1"], made.containers["a3"]
    seen = made.capture("n1", f"shb-{VNI['a']}")
    told = ipaddress.IPv6Address(a3.address6).packed
    for kind in (133, 134, 136, 137):
        made.raw("a1", frames.ether("33:33:00:00:00:01", a1.mac, *frames.icmp6(kind, a1.address6, "ff02::1", bytes(4) + told)))
        made.raw("a1", frames.ether(TO_GATEWAY, a1.mac, *frames.icmp6(kind, a1.address6, gateway6("a", "n1"), bytes(4) + told)))
    gateway_ = ipaddress.IPv6Address(gateway6("a", "n1")).packed
    honest = frames.ether(TO_GATEWAY, a1.mac, *frames.icmp6(135, a1.address6, gateway6("a", "n1"), bytes(4) + gateway_))
    made.raw("a1", honest, times=1)
    assert [frame for frame in payloads(seen, honest) if frame[6:12] == frames.mac(a1.mac)] == []


@pytest.mark.parametrize(("node", "other"), [("n1", "n2"), ("n2", "n1")])
@pytest.mark.parametrize("network", ["a", "b"])
def test_vxlan_frames_are_taken_from_peers_only(made: Place, network: str, node: str, other: str) -> None:
    target = {"an1": "a3", "an2": "a2", "bn1": "b1", "bn2": "b2"}[network + node]
    listener, port = made.listen(target, 5003), 4789

    def injected(payload: bytes) -> bytes:
        source = f"{SUBNET[network]}.{other[1:]}.77"
        to, came = (mac_of(vtep(network, of), VNI[network]) for of in (node, other))
        inner = frames.udp(source, made.containers[target].address, 5003, payload)
        return frames.vxlan(VNI[network], frames.ether(to, came, *inner))

    aims = [at("a", of) for at in (gateway, vtep) for of in ("n1", "n2")] + [made.containers[target].address]
    for address in (UNDERLAY["n1"], UNDERLAY["n2"], *aims):
        for name in ("a1", "b1"):
            for _ in range(20):
                made.send(name, address, port, injected(b"from a container"))
    for source in UNDERLAY.values():
        for frame_to in (TO_GATEWAY, "01:80:c2:00:00:0e"):
            kind, packet = frames.udp(source, UNDERLAY[node], port, injected(b"spoofed"))
            made.raw("a1", frames.ether(frame_to, made.containers["a1"].mac, kind, packet))
    for _ in range(20):
        made.send("out", UNDERLAY[node], port, injected(b"from a stranger"))
    made.send(other, UNDERLAY[node], port, injected(b"from the peer"))
    assert payloads(listener, b"from the peer") == []


def test_containers_of_different_networks_do_not_reach_each_other(made: Place) -> None:
    listeners = {name: made.listen(name, 5004) for name in ("a2", "a3", "b1", "b2", "i1", "n1", "n2", "out")}
    foreign = [made.containers[name].address for name in ("b1", "b2", "i1")]
    foreign += [at(network, node) for network in ("b", "inner") for node in ("n1", "n2") for at in (gateway, vtep)]
    foreign += [made.containers["i1"].address6, gateway6("inner", "n1"), gateway6("inner", "n2"), gateway6("a", "n2")]
    foreign += [vtep("a", "n1"), vtep("a", "n2"), gateway("a", "n2"), "10.77.250.1", "10.78.250.1"]
    for address in foreign:
        for _ in range(20):
            made.send("a1", address, 5004, b"foreign")
    for name in ("b1", "b2", "i1"):
        made.send(name, made.containers["a3"].address, 5004, b"foreign")
        made.send(name, made.containers["a2"].address, 5004, b"foreign")
    for address in (made.containers["i1"].address6, gateway6("inner", "n1")):
        made.send("a2", address, 5004, b"foreign")
    both = {"a2": "a1", "a3": "a2"}
    for name, source in both.items():
        made.send(source, made.containers[name].address6, 5004, b"by IPv6")
    for name, source in {**both, "b2": "b1", "b1": "b2", "n2": "b2", "n1": "a1", "out": "a1", "i1": "n1"}.items():
        made.send(source, UNDERLAY.get(name) or made.containers[name].address, 5004, b"honest")
    for name, listener in listeners.items():
        assert payloads(listener, b"honest") == ([b"by IPv6"] if name in both else []), name


def test_an_internal_network_has_no_way_out(made: Place) -> None:
    out, node, name_server = made.listen("out", 5005), made.listen("n1", 5005), made.listen("n1", 53)
    inside = f"nsenter --net={made.containers['i1'].path}"
    for target in (f"{UNDERLAY['out']}/32", f"{UNDERLAY['n1']}/32", f"{SUBNET['a']}.0.0/16"):
        made.spaces["n1"].sh(f"{inside} ip route replace {target} via {gateway('inner', 'n1')}")
    others = (gateway("a", "n1"), gateway6("a", "n1"), made.containers["a1"].address, made.containers["a1"].address6)
    for address in (UNDERLAY["out"], UNDERLAY["n1"], gateway("inner", "n1"), gateway6("inner", "n1"), *others):
        for _ in range(20):
            made.send("i1", address, 5005, b"out")
    for address in (gateway6("inner", "n1"), gateway("inner", "n1")):
        made.send("i1", address, 53, b"a question")
        assert payloads(name_server, b"a question") == []
    made.send("a1", UNDERLAY["out"], 5005, b"honest")
    made.send("a1", UNDERLAY["n1"], 5005, b"honest")
    assert payloads(out, b"honest") == payloads(node, b"honest") == []
    made.spaces["n1"].sh(f"{inside} ping -c 1 -W 2 {gateway('inner', 'n1')}\n{inside} ping -c 1 -W 2 {gateway6('inner', 'n1')}")


@pytest.mark.parametrize("name", ["a1", "a2", "i1"])
def test_the_node_itself_reaches_containers(made: Place, name: str) -> None:
    listener = made.listen(name, 5006, tcp=True)
    for address in (made.containers[name].address, made.containers[name].address6):
        client = made.call("n1", address, 5006)
        listener.accept()[0].close()
        client.settimeout(5)
        assert client.recv(1) == b""


def test_daemons_are_out_of_containers_reach_and_other_services_are_not(made: Place) -> None:
    daemons = [made.listen(name, port, tcp=True) for name, port in (("n1", 7443), ("n2", 7443), ("out", 7070))]
    services = {name: made.listen(name, 8080, tcp=True) for name in ("n1", "n2", "out")}
    local = [UNDERLAY["n1"], gateway("a", "n1"), gateway("b", "n1"), vtep("a", "n1"), gateway6("a", "n1")]
    calls = [
        made.call(name, address, 7443)
        for name in ("a1", "b1", "i1")
        for address in (*local, UNDERLAY["n2"], gateway("a", "n2"))
    ]
    calls += [made.call(name, UNDERLAY6["out"], 7070) for name in ("a1", "a2")]
    calls += [made.call(name, UNDERLAY["out"], 7070) for name in ("a1", "b1", "a2", "i1")]
    for name, listener in services.items():
        client = made.call("a1", UNDERLAY[name], 8080)
        with listener.accept()[0] as server:
            server.sendall(b"hello")
            client.settimeout(5)
            assert client.recv(10) == b"hello"
    for own in (gateway("a", "n1"), gateway6("a", "n1")):
        made.call("a1", own, 8080)
        services["n1"].accept()[0].close()
    for listener in daemons:
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    for call in calls:
        with pytest.raises(OSError):
            call.getpeername()
    made.call("n2", UNDERLAY["n1"], 7443)
    daemons[0].settimeout(5)
    daemons[0].accept()[0].close()


def test_published_ports_pass_and_other_ways_from_outside_do_not(made: Place) -> None:
    a1 = made.containers["a1"]
    made.spaces["out"].sh(f"ip route replace 10.77.0.0/16 via {UNDERLAY['n1']}")
    translation = f"ip daddr {UNDERLAY['n1']} tcp dport 8081 dnat ip to {a1.address}:80"
    rules = f"table inet t-published {{ chain c {{ type nat hook prerouting priority -100; {translation}; }}; }}"
    assert made.spaces["n1"].run("nft -f -", rules)[0] == 0
    listener, datagrams = made.listen("a1", 80, tcp=True), made.listen("a1", 80)
    direct = made.call("out", a1.address, 80)
    made.send("out", a1.address, 80, b"direct")
    client = made.call("out", UNDERLAY["n1"], 8081)
    server, (address, *_) = listener.accept()
    with server:
        assert address == f"::ffff:{UNDERLAY['out']}", "the client's address is kept"
        server.sendall(b"published")
        client.settimeout(5)
        assert client.recv(20) == b"published"
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    with pytest.raises(OSError):
        direct.getpeername()
    made.send("n1", a1.address, 80, b"the node itself")
    assert payloads(datagrams, b"the node itself") == []


def test_nothing_goes_out_with_a_container_s_own_address(made: Place) -> None:
    a1 = made.containers["a1"]
    listener, seen = made.listen("out", 5007), made.capture("out", "up0")
    made.raw("a1", frames.ether(TO_GATEWAY, a1.mac, *frames.reset(a1.address, UNDERLAY["out"])))
    for address, own in ((UNDERLAY6["out"], UNDERLAY6["n1"]), (UNDERLAY["out"], f"::ffff:{UNDERLAY['n1']}")):
        made.send("a1", address, 5007, b"masqueraded")
        assert listener.recvfrom(100)[1][0] == own
    while not (frame := seen.recv(2048)).endswith(b"masqueraded") or frame[12:14] != b"\x08\x00":
        assert ipaddress.ip_address(a1.address).packed not in frame


def test_no_network_is_a_way_for_others_traffic(made: Place) -> None:
    listener, beyond = made.listen("out", 5008), "203.0.113.9"
    made.spaces["out"].sh(f"ip address add {beyond}/32 dev lo")
    made.spaces["n2"].sh(f"ip route add {beyond}/32 via {UNDERLAY['out']}")
    made.spaces["n1"].sh(f"ip route add {beyond}/32 via {vtep('a', 'n2')} dev shx-{VNI['a']} onlink")
    for _ in range(20):
        made.send("n1", beyond, 5008, b"through the overlay")
    made.send("n2", beyond, 5008, b"directly")
    assert payloads(listener, b"directly") == []


def test_published_ports_do_not_lead_into_internal_networks(made: Place) -> None:
    i1 = made.containers["i1"]
    translation = f"ip daddr {UNDERLAY['n1']} udp dport 8082 dnat ip to {i1.address}:5009"
    rules = f"table inet t-internal {{ chain c {{ type nat hook prerouting priority -100; {translation}; }}; }}"
    assert made.spaces["n1"].run("nft -f -", rules)[0] == 0
    listener = made.listen("i1", 5009)
    for _ in range(20):
        made.send("out", UNDERLAY["n1"], 8082, b"published")
    made.send("n1", i1.address, 5009, b"the node itself")
    assert payloads(listener, b"the node itself") == []
