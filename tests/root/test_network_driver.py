"""The kernel's NetworkDriver between two nodes, each a network namespace on a bridge in a third one: nothing of the host's."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

NET = "10.77.0.0/16"
SLICES = {"n1": "10.77.1.0/24", "n2": "10.77.2.0/24"}
UNDERLAY = {"n1": "192.0.2.1", "n2": "192.0.2.2"}


def sh(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


class Node:
    """A driver process in namespace `netns`, spoken to by lines of JSON."""

    def __init__(self, netns: str, name: str, run_dir: Path) -> None:
        self.name = name
        self._argv = ["nsenter", f"--net=/run/netns/{netns}", "setpriv", "--pdeathsig", "KILL"]
        self._argv += [sys.executable, "-m", "tests.root.network_node", str(run_dir), UNDERLAY[name]]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "{}\n"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __call__(self, do: str, **rest: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **rest}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["ok"]

    def run(self, *argv: str) -> tuple[int, str]:
        answer = self("run", argv=list(argv))
        return answer["code"], answer["out"]

    def apply(self, *others: str, name: str = "shop_default") -> None:
        peers = [{"node": o, "underlay": UNDERLAY[o], "slice": SLICES[o]} for o in others]
        self("apply", networks=[{"name": name, "vni": 4097, "subnet": NET, "slice": SLICES[self.name], "peers": peers}])

    def ping(self, inside: str, address: str, *options: str) -> bool:
        path = f"--net={inside}"
        return self.run("nsenter", path, "ping", "-c", "1", "-W", "1", *options, address)[0] == 0


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, Node]]:
    tag = secrets.token_hex(3)
    spaces = {name: f"shtest-{tag}-{name}" for name in ("sw", *SLICES)}
    made: dict[str, Node] = {}
    with contextlib.ExitStack() as stack:
        for space in spaces.values():
            sh("ip", "netns", "add", space)
            stack.callback(subprocess.run, ["ip", "netns", "del", space], check=False)
        sh("ip", "-n", spaces["sw"], "link", "add", "br0", "up", "type", "bridge")
        for name, address in UNDERLAY.items():
            sh("ip", "-n", spaces["sw"], "link", "add", name, "type", "veth", "peer", "name", "up0", "netns", spaces[name])
            sh("ip", "-n", spaces["sw"], "link", "set", name, "up", "master", "br0")
            sh("ip", "-n", spaces[name], "address", "add", f"{address}/24", "dev", "up0")
            sh("ip", "-n", spaces[name], "link", "set", "up0", "up")
            made[name] = Node(spaces[name], name, tmp_path / name)
            stack.callback(made[name].stop)
        yield made
        for node in made.values():
            node("close", remove=True)
            assert not list((tmp_path / node.name / "netns").iterdir())
            left = [row for row in node.run("ip", "-br", "link")[1].splitlines() if row.startswith("sh")]
            assert left == []
            assert "shoal" not in node.run("nft", "list", "tables")[1]


def test_containers_on_different_nodes_reach_each_other_with_whole_datagrams(nodes: dict[str, Node]) -> None:
    n1, n2 = nodes["n1"], nodes["n2"]
    n1.apply("n2")
    n2.apply("n1")
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    b = n2("attach", id="b" * 64, networks=["shop_default"])
    assert a["addresses"] == [["shop_default", "10.77.1.2/16"]]
    assert b["addresses"] == [["shop_default", "10.77.2.2/16"]]
    assert n1.ping(a["netns_path"], "10.77.2.2")
    assert n1.ping(a["netns_path"], "10.77.2.2", "-s", "4000")
    assert n1.ping(a["netns_path"], "10.77.1.1")


def test_detached_containers_leave_nothing_and_addresses_go_round(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply()
    first = n1("attach", id="a" * 64, networks=["shop_default"])["addresses"]
    n1("detach", id="a" * 64)
    n1("detach", id="a" * 64)
    second = n1("attach", id="b" * 64, networks=["shop_default"])["addresses"]
    assert first != second
    n1("detach", id="b" * 64)
    assert "shv-" not in n1.run("ip", "-br", "link")[1]


def test_many_leave_together_and_nobody_else_with_them(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply()
    ids = [f"{number:02x}" * 32 for number in range(12)]
    paths = [n1("attach", id=container_id, networks=["shop_default"])["netns_path"] for container_id in ids]
    n1("detach_all", ids=[*ids[1:], "never-attached"])
    links = [row for row in n1.run("ip", "-br", "link")[1].splitlines() if row.startswith("shv-")]
    assert len(links) == 1
    assert n1.ping(paths[0], "10.77.1.1")
    assert [path for path in paths if Path(path).exists()] == paths[:1]
    n1("detach_all", ids=ids)
    assert "shv-" not in n1.run("ip", "-br", "link")[1]


def test_a_killed_agent_finds_its_attachments_again_and_frees_the_others(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply()
    kept = n1("attach", id="a" * 64, networks=["shop_default"])
    n1("attach", id="b" * 64, networks=["shop_default"])
    n1.stop()
    n1.start()
    n1.apply()
    n1("recover", ids=["a" * 64])
    assert n1.ping(kept["netns_path"], "10.77.1.1")
    assert n1.run("ip", "-br", "link")[1].count("shv-") == 1
    assert n1("attach", id="c" * 64, networks=["shop_default"])["addresses"] != kept["addresses"]


def test_what_somebody_deletes_is_back_after_repair(nodes: dict[str, Node]) -> None:
    n1, n2 = nodes["n1"], nodes["n2"]
    n1.apply("n2")
    n2.apply("n1")
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    n2("attach", id="b" * 64, networks=["shop_default"])
    n1.run("ip", "route", "del", SLICES["n2"])
    assert any("route" in sentence for sentence in n1("repair"))
    n1.run("ip", "link", "del", "shb-4097")
    n1.run("nft", "delete", "table", "inet", "shoal")
    sentences = n1("repair")
    assert any("shb-4097" in sentence for sentence in sentences)
    assert any("inet shoal" in sentence for sentence in sentences)
    assert n1("repair") == []
    assert n1.ping(a["netns_path"], "10.77.2.2")


def test_frames_from_others_than_peers_are_dropped(nodes: dict[str, Node]) -> None:
    n1, n2 = nodes["n1"], nodes["n2"]
    n1.apply("n2")
    n2.apply("n1")
    a = n1("attach", id="a" * 64, networks=["shop_default"])
    n2("attach", id="b" * 64, networks=["shop_default"])
    assert n1.ping(a["netns_path"], "10.77.2.2")
    n2.apply()
    assert not n1.ping(a["netns_path"], "10.77.2.2")


def test_two_networks_of_a_node_do_not_reach_each_other(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    rows = [("one", 4097, "10.77.0.0/16", "10.77.1.0/24"), ("two", 4098, "10.78.0.0/16", "10.78.1.0/24")]
    n1("apply", networks=[{"name": n, "vni": v, "subnet": s, "slice": c} for n, v, s, c in rows])
    a = n1("attach", id="a" * 64, networks=["one"])
    both = n1("attach", id="b" * 64, networks=["one", "two"])
    n1("attach", id="c" * 64, networks=["two"])
    assert n1.ping(both["netns_path"], "10.78.1.3")
    assert not n1.ping(a["netns_path"], "10.78.1.3")


def test_the_nodes_own_bridge_needs_no_user_network(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    a = n1("attach", id="a" * 64, networks=["bridge"])
    b = n1("attach", id="b" * 64, networks=["bridge"])
    assert n1.ping(a["netns_path"], b["addresses"][0][1].split("/")[0])
    assert n1("attach", id="c" * 64, networks=["none"])["addresses"] == []
    assert n1("attach", id="d" * 64, networks=["host"])["netns_path"] == ""


def test_unknown_and_overlapping_networks_say_so(nodes: dict[str, Node]) -> None:
    n1 = nodes["n1"]
    n1.apply()
    with pytest.raises(RuntimeError, match="network shop_other is not on this node yet"):
        n1("attach", id="a" * 64, networks=["shop_other"])
    rows = [("one", 4097, "10.77.0.0/16", "10.77.1.0/24"), ("two", 4098, "10.77.0.0/17", "10.77.2.0/24")]
    with pytest.raises(RuntimeError, match="overlap"):
        n1("apply", networks=[{"name": n, "vni": v, "subnet": s, "slice": c} for n, v, s, c in rows])
