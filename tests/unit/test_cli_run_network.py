"""`shoal run`: Docker's words for networks, names and ports."""

from __future__ import annotations

from typing import Any

import pytest

from cli.run import run_command
from cli.run_network import discarded, host, link, network_fields, ports
from cli.run_spec import service_spec
from model.errors import BadInput
from model.spec import Attachment, ContainerSpec, Port


def options(*words: str) -> dict[str, Any]:
    """The options as the command line reads them."""
    return dict(run_command.make_context("run", [*words, "busybox"]).params)


def box(*words: str) -> ContainerSpec:
    return service_spec(options(*words)).container


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("80", (Port(80),)),
        ("8080:80", (Port(80, 8080),)),
        ("127.0.0.1:8080:80", (Port(80, 8080, host_ip="127.0.0.1"),)),
        ("127.0.0.1::80", (Port(80, host_ip="127.0.0.1"),)),
        ("53:53/udp", (Port(53, 53, "udp"),)),
        ("8000-8002:80", (Port(80, 8000, published_end=8002),)),
        ("8000-8001:80-81", (Port(80, 8000), Port(81, 8001))),
    ],
)
def test_forms_of_published_ports(word: str, expected: tuple[Port, ...]) -> None:
    assert ports(word) == expected
    assert box("-p", word).ports == expected


BAD = ["-", "http", "80:", ":80:", "70000:80", "80:80/foo", "8000-8002:80-81", "8002-8000:80", "a:80:80", "80:0"]


@pytest.mark.parametrize("word", BAD)
def test_a_bad_port_is_one_line(word: str) -> None:
    with pytest.raises(BadInput, match=r"^-p .*expected") as caught:
        ports(word)
    assert "\n" not in str(caught.value)


def test_the_default_network_is_bridge_and_several_are_taken_in_order() -> None:
    assert box().networks == (Attachment("bridge"),)
    found = box("--network", "b", "--net", "a", "--network-alias", "x", "--network-alias", "y").networks
    assert found == (Attachment("b", ("x", "y")), Attachment("a", ("x", "y")))
    assert box("--network", "n", "--ip", "10.1.2.3").networks == (Attachment("n", (), "10.1.2.3"),)


def test_dockers_long_form_of_a_network() -> None:
    found = box("--network", "name=n,alias=a,alias=b,ip=10.1.2.3", "--network", "m", "--network-alias", "x").networks
    assert found == (Attachment("n", ("a", "b", "x"), "10.1.2.3"), Attachment("m", ("x",)))


@pytest.mark.parametrize(
    "word", ["name=n,mac=1", "alias=a", "name=n,name=m", "name=n,ip=ten", "name=n,ip=", "name=n,alias=a b", "name=n,alone"]
)
def test_a_bad_long_form_is_one_line(word: str) -> None:
    with pytest.raises(BadInput, match=f"^--network '{word}': ") as caught:
        box("--network", word)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--network", "n", "--network-alias", "a b"), "--network-alias: name 'a b': expected"),
        (("--link", "db:a b"), "--link 'db:a b': name 'a b': expected"),
        (("--dns-search", "a b"), "--dns-search: name 'a b': expected"),
        (("--network", "name=host,alias=a"), "--network-alias: the network host has no names"),
        (("--ip6", "fd00::1"), "--ip6: a container's IPv6 address follows"),
    ],
)
def test_a_name_that_nobody_can_ask_for_is_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInput, match=f"^{said}"):
        box(*words)


def test_no_search_domain_is_a_dot() -> None:
    assert box("--dns-search", ".").dns_search == (".",)


def test_everything_about_names() -> None:
    found = box(
        "--link", "db", "--link", "db:store", "--dns", "10.0.0.53", "--dns-search", "a.org", "--dns-option", "ndots:2",
        "--add-host", "h:10.0.0.1", "--add-host", "g=host-gateway", "--add-host", "six:[fd00::1]", "--hostname", "me",
        "--domainname", "d.org", "--expose", "80", "--expose", "90-91/udp", "-P",
    )  # fmt: skip
    assert found.links == (("db", "db"), ("db", "store"))
    assert (found.dns, found.dns_search, found.dns_opt) == (("10.0.0.53",), ("a.org",), ("ndots:2",))
    assert found.extra_hosts == (("h", "10.0.0.1"), ("g", "host-gateway"), ("six", "fd00::1"))
    assert (found.hostname, found.domainname, found.publish_all) == ("me", "d.org", True)
    assert found.expose == ("80/tcp", "90/udp", "91/udp")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--network", "container:other"], "--network container:other: a container cannot share"),
        (["--network", "host", "--network", "n"], "--network host: it cannot stand beside"),
        (["--network-alias", "x"], "--network-alias: the network bridge has no names"),
        (["--ip", "10.1.2.3"], "--ip: an address can be chosen on one network"),
        (["--network", "n", "--ip", "ten"], "--ip: address 'ten'"),
        (["--expose", "http"], "--expose: exposed port 'http'"),
        (["--link", ":x"], "--link ':x'"),
        (["--link", "x:"], "--link 'x:'"),
        (["--dns", "one"], "--dns: address 'one'"),
        (["--add-host", "name"], "--add-host 'name'"),
        (["--add-host", "name:address"], "--add-host: address 'address'"),
        (["--mac-address", "02:00:00:00:00:01"], "--mac-address: a container's MAC address cannot be chosen"),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        network_fields(options(*words))
    assert str(caught.value).startswith(said)


def test_published_ports_mean_nothing_without_a_network_of_its_own() -> None:
    found = box("--network", "host", "-p", "80:80", "-P")
    assert (found.ports, found.publish_all) == ((), False)
    assert "the node's own" in discarded(options("--network", "host", "-p", "80:80"))
    assert not discarded(options("--network", "host"))
    assert not discarded(options("-p", "80:80"))


def test_words_of_links_and_hosts() -> None:
    assert link("a") == ("a", "a")
    assert link("a:b") == ("a", "b")
    assert host("h=::1") == ("h", "::1")
