"""`shoal network` and published ports: words in, requests and Docker's text out."""

from __future__ import annotations

from typing import Any

import pytest

from cli.main import main
from cli.network import COLUMNS, create
from cli.network_words import connect_body, docker_network, matching, network_spec, until_rewired
from cli.output import table
from cli.ports import parsed, place, port_lines, ports_column, wanted_port
from model.errors import BadInput, NotFound
from model.spec import NetworkSpec


def spec(*words: str) -> NetworkSpec:
    params = create.make_context("create", [*words, "mine"]).params
    return network_spec(params.pop("name"), params)


def test_create_says_what_docker_says() -> None:
    assert spec() == NetworkSpec("mine", driver="bridge")
    found = spec(
        "-d", "overlay", "--subnet", "10.9.0.0/16", "--subnet", "fd00:9::/64", "--ipv6", "--internal", "--attachable",
        "--label", "a=b", "-o", "encrypted", "--opt", "x=y",
    )  # fmt: skip
    assert found == NetworkSpec(
        "mine", driver="overlay", subnet="10.9.0.0/16", subnet6="fd00:9::/64", internal=True, enable_ipv6=True,
        options=(("encrypted", ""), ("x", "y")), labels=(("a", "b"),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-d", "macvlan"], "--driver: there is no driver 'macvlan', only bridge and overlay"),
        (["--subnet", "ten"], "subnet 'ten': expected"),
        (["--subnet", "10.9.0.0/16", "--subnet", "10.8.0.0/16"], "--subnet 10.8.0.0/16: a network has one IPv4 subnet"),
        (["--subnet", "fd00::/64"], "--subnet fd00::/64: an IPv6 subnet needs --ipv6"),
        (["--gateway", "10.9.0.1"], "--gateway: every node has its own"),
        (["--ip-range", "10.9.0.0/24"], "--ip-range: every node"),
        (["--scope", "local"], "--scope: every network"),
        (["--ingress"], "--ingress: published ports"),
    ],
)
def test_what_a_network_cannot_be_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["network", "create", *words, "mine"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"shoal: {said}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ls", "--format", "{{.Name}}"], "--format: there are no templates"),
        (["inspect", "-f", "{{.Id}}", "mine"], "--format: there are no templates"),
        (["connect", "--ip6", "fd00::1", "mine", "box"], "--ip6: an IPv6 address follows"),
        (["connect", "--gw-priority", "1", "mine", "box"], "--gw-priority: a container leaves by"),
    ],
)
def test_dockers_other_options_say_why_they_are_not_there(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["network", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"shoal: {said}")


def network(ident: str, name: str, driver: str, subnet: str = "", **more: Any) -> dict[str, Any]:
    scope = "swarm" if subnet else "local"
    return {"id": ident * 16, "name": name, "driver": driver, "scope": scope, "subnet": subnet, "labels": {}, **more}


ALL = [
    network("c", "bridge", "bridge"),
    network("d", "host", "host"),
    network("e", "none", "null"),
    network("a", "minha-rede", "bridge", "10.64.0.0/16"),
    network("b", "shop_back", "overlay", "10.65.0.0/16", subnet6="fd00::/96", labels={"tier": "db"}),
]


def test_listing_is_dockers() -> None:
    head, first, *_, last = table(ALL, COLUMNS).splitlines()
    assert head.split() == ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE", "SUBNET"]
    assert first.split() == ["c" * 12, "bridge", "bridge", "local", "-"]
    assert last.split() == ["b" * 12, "shop_back", "overlay", "swarm", "10.65.0.0/16,fd00::/96"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["driver=bridge"], ["bridge", "minha-rede"]),
        (["name=re"], ["minha-rede"]),
        (["name=re", "name=shop"], ["minha-rede", "shop_back"]),
        (["label=tier"], ["shop_back"]),
        (["label=tier=web"], []),
        (["type=builtin"], ["bridge", "host", "none"]),
        (["id=aaa"], ["minha-rede"]),
        (["type=custom", "driver=overlay"], ["shop_back"]),
    ],
)
def test_filters(filters: list[str], names: list[str]) -> None:
    assert [row["name"] for row in matching(ALL, filters)] == names


def test_a_filter_that_is_not_known_is_named() -> None:
    with pytest.raises(BadInput, match="--filter 'colour=red'"):
        matching(ALL, ["colour=red"])


def test_inspect_is_dockers_with_our_words_apart() -> None:
    docker = {"Name": "minha-rede", "Driver": "bridge", "IPAM": {"Config": []}}
    row = {**ALL[3], "vni": 5, "slices": {"n1": "10.64.0.0/24"}, **docker}
    assert docker_network(row) == {
        **docker, "Shoal": {"VNI": 5, "Stack": "", "Slices": {"n1": "10.64.0.0/24"}},
    }  # fmt: skip


def test_body_of_connect() -> None:
    body = connect_body("box", ("a",), "10.1.2.3", ("db:store",))
    assert body == {"container": "box", "aliases": ["a"], "ipv4_address": "10.1.2.3", "links": [["db", "store"]]}
    with pytest.raises(BadInput):
        connect_body("box", (), "ten", ())


class Replicas:
    """Answers of GET /v1/replicas, one after the other."""

    def __init__(self, *answers: list[dict[str, Any]]) -> None:
        self.answers = list(answers)
        self.index = 0
        self.asked: list[Any] = []

    def get(self, path: str, **query: Any) -> list[dict[str, Any]]:
        self.asked.append(query["index"])
        self.index += 1
        return self.answers.pop(0)


@pytest.mark.parametrize("alias", ["", "a b", "a..b", "a" * 64, "a/b"])
def test_an_alias_is_a_name_that_can_be_asked_for(alias: str) -> None:
    with pytest.raises(BadInput, match=r"^--alias: name .*expected letters"):
        connect_body("box", (alias,), "", ())


def test_a_network_with_only_an_ipv6_subnet_so_far_shows_that() -> None:
    row = network("d", "six", "bridge", "") | {"subnet6": "fd00:9::/64"}
    assert table([row], COLUMNS).splitlines()[1].endswith("   fd00:9::/64")


def test_connecting_waits_for_running_replicas_only() -> None:
    failed = {"name": "box", "state": "failed", "networks": {}}
    before = [{"name": "box", "state": "running", "networks": {"bridge": "1"}}, failed]
    after = [{"name": "box", "state": "running", "networks": {"bridge": "1", "n": "2"}}]
    client = Replicas(before, after)
    until_rewired(client, "n", "box", connected=True)  # type: ignore[arg-type]
    assert client.asked == [None, 1]
    until_rewired(Replicas(after, before), "n", "box", connected=False)  # type: ignore[arg-type]
    until_rewired(Replicas([]), "n", "box", connected=True)  # type: ignore[arg-type]


def test_pruning_without_a_terminal_asks_for_f(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["network", "prune"]) == 1
    assert "-f does not ask" in capsys.readouterr().err


def port(target: int, published: int = 0, protocol: str = "tcp", **more: Any) -> dict[str, Any]:
    return {"target": target, "published": published, "protocol": protocol, "mode": "ingress", "host_ip": "", **more}


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ([], []),
        ([port(80, 8080)], ["0.0.0.0:8080->80/tcp"]),
        ([port(80)], ["80/tcp"]),
        ([port(82, 8002), port(80, 8000), port(81, 8001)], ["0.0.0.0:8000-8002->80-82/tcp"]),
        ([port(80, 8000), port(80, 9000)], ["0.0.0.0:8000->80/tcp", "0.0.0.0:9000->80/tcp"]),
        ([port(53, 53), port(53, 53, "udp")], ["0.0.0.0:53->53/tcp", "0.0.0.0:53->53/udp"]),
        ([port(80, 8080, host_ip="127.0.0.1")], ["127.0.0.1:8080->80/tcp"]),
        ([port(80, 8080, host_ip="::1")], ["[::1]:8080->80/tcp"]),
    ],
)
def test_ports_as_docker_ps_prints_them(ports: list[dict[str, Any]], words: list[str]) -> None:
    assert ports_column(ports) == words


def test_ports_of_a_replica_are_read_back() -> None:
    words = ["0.0.0.0:8000->80/tcp", "0.0.0.0:8001->81/tcp", "[::1]:53->53/udp"]
    assert ports_column(map(parsed, words)) == ["0.0.0.0:8000-8001->80-81/tcp", "[::1]:53->53/udp"]


def test_lines_of_port() -> None:
    ports = [
        {"target": 80, "protocol": "tcp", "published": 8080, "address": "0.0.0.0:8080", "node": ""},
        {"target": 53, "protocol": "udp", "published": 53, "address": "127.0.0.1:53", "node": ""},
        {"target": 90, "protocol": "tcp", "published": 32768, "address": "0.0.0.0:32768", "node": "n2"},
    ]
    assert port_lines(ports, "", "web") == ["80/tcp -> 0.0.0.0:8080", "90/tcp -> n2 0.0.0.0:32768", "53/udp -> 127.0.0.1:53"]
    assert port_lines(ports, "80", "web") == ["0.0.0.0:8080"]
    assert port_lines(ports, "53/udp", "web") == ["127.0.0.1:53"]
    for missing in ("81", "53"):
        with pytest.raises(NotFound, match="web has no published port"):
            port_lines(ports, missing, "web")
    for bad in ("http", "80/foo", "0"):
        with pytest.raises(BadInput):
            wanted_port(bad)
    assert place("", 80) == "0.0.0.0:80"


def test_what_is_sent_is_what_the_controller_takes() -> None:
    from controller.api.schemas import ConnectBody, DisconnectBody
    from model import codec

    body = ConnectBody.model_validate(connect_body("box", ("a",), "10.1.2.3", ("db",)))
    assert (body.container, body.aliases, body.ipv4_address, body.links) == ("box", ["a"], "10.1.2.3", [["db", "db"]])
    assert DisconnectBody.model_validate({"container": "box", "force": True}).force
    wanted = spec("--subnet", "10.9.0.0/16", "--label", "a=b")
    assert codec.from_plain(NetworkSpec, codec.to_plain(wanted)) == wanted
