"""The rules' sets follow from networks, containers and guarded addresses, and change by difference."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from agent.plan import firewall
from agent.plan.firewall import BRIDGE, INET, PortRow, RulesWanted
from agent.plan.network import NetworkWanted, PeerWanted, link_plan, local_bridge

SHOP = NetworkWanted("shop", 4097, "10.77.0.0/16", "10.77.1.0/24", (PeerWanted("n2", "192.0.2.2", "10.77.2.0/24"),))
ROW = PortRow("shv-abc00", "0a:01:0a:4d:01:02", "10.77.1.2")


def rules(*networks: NetworkWanted, ports: tuple[PortRow, ...] = (), guarded: tuple[str, ...] = ()) -> firewall.Contents:
    plans = tuple(link_plan(wanted, 1500) for wanted in networks)
    return firewall.contents(RulesWanted(plans, frozenset(ports), frozenset(guarded)))


def filled(contents: firewall.Contents) -> dict[tuple[str, str], list[str]]:
    return {place: sorted(elements) for place, elements in contents.items() if elements}


def test_an_overlay_has_ways_between_its_own_links_and_its_own_addresses_only() -> None:
    inside = [
        '"shb-4097" . 10.77.0.0/16 . "shb-4097" . 10.77.0.0/16',
        '"shb-4097" . 10.77.0.0/16 . "shx-4097" . 10.77.0.0/16',
        '"shx-4097" . 10.77.0.0/16 . "shb-4097" . 10.77.0.0/16',
    ]
    assert filled(rules(SHOP)) == {
        (INET, "peers"): ["192.0.2.2"],
        (INET, "own"): ['"shb-4097" . 10.77.1.1'],
        (INET, "subnets"): ["10.77.0.0/16"],
        (INET, "inside"): inside,
    }


def test_the_node_s_own_bridge_stays_on_the_node() -> None:
    assert filled(rules(local_bridge()))[INET, "inside"] == ['"shb-0" . 172.30.0.0/20 . "shb-0" . 172.30.0.0/20']


def test_ipv6_has_the_same_ways() -> None:
    network = NetworkWanted("six", 5, "10.5.0.0/16", "10.5.1.0/24", prefix6="fd00:5::/96", internal=True)
    found = filled(rules(network))
    assert found[INET, "subnets6"] == ["fd00:5::a05:0/112"]
    assert found[INET, "own6"] == ['"shb-5" . fd00:5::a05:101']
    assert found[INET, "inside6"][0] == '"shb-5" . fd00:5::a05:0/112 . "shb-5" . fd00:5::a05:0/112'
    assert len(found[INET, "inside6"]) == len(found[INET, "inside"])
    assert found[INET, "internal"] == ['"shb-5"']


def test_guarded_addresses_of_both_families_and_their_ports() -> None:
    assert filled(rules(guarded=("192.0.2.1:7443", "[fd00::1]:7070", "controller.example:2379"))) == {
        (INET, "guarded"): ["192.0.2.1 . 7443"],
        (INET, "guarded6"): ["fd00::1 . 7070"],
        (INET, "guarded_ports"): ["2379", "7070", "7443"],
    }


def test_what_is_no_tcp_address_costs_no_rules() -> None:
    words = ("controller", "controller:https", "10.0.0.1:0", "10.0.0.1:70000", "10.0.0.1:7 } ; flush ruleset", "")
    assert filled(rules(guarded=words)) == {}
    assert filled(rules(guarded=("[fe80::1%eth0 }]:07443",))) == {
        (INET, "guarded6"): ["fe80::1 . 7443"],
        (INET, "guarded_ports"): ["7443"],
    }


def test_who_is_admitted_sends_and_who_is_dismissed_does_not() -> None:
    before = rules(SHOP)
    row = PortRow(ROW.link, ROW.mac, ROW.address, "fd00::2")
    after = firewall.admitted(before, [row])
    assert after == rules(SHOP, ports=(row,))
    assert firewall.difference(before, after).splitlines() == [
        'add element bridge shoal senders { "shv-abc00" . 0a:01:0a:4d:01:02 . 10.77.1.2 }',
        'add element bridge shoal senders6 { "shv-abc00" . 0a:01:0a:4d:01:02 . fd00::2 }',
    ]
    assert firewall.dismissed(after, [row]) == before


def test_what_goes_goes_before_what_comes() -> None:
    other = NetworkWanted("other", 4098, "10.77.0.0/17", "10.77.1.0/24")
    verbs = [line.split()[0] for line in firewall.difference(rules(SHOP), rules(other)).splitlines()]
    assert verbs == sorted(verbs, reverse=True)
    assert firewall.difference(rules(SHOP), rules(SHOP)) == ""


def test_the_whole_text_replaces_our_tables_and_no_other() -> None:
    text = firewall.whole(rules(SHOP, ports=(ROW,)))
    lines = [line for line in text.splitlines() if line and not line.startswith((" ", "}"))]
    assert lines == [
        "add table inet shoal", "delete table inet shoal", "add table bridge shoal", "delete table bridge shoal",
        "add table arp shoal", "delete table arp shoal",
        "table inet shoal {", "table bridge shoal {", "table arp shoal {",
    ]  # fmt: skip
    assert text.count("{") == text.count("}")
    assert '"shv-abc00" . 0a:01:0a:4d:01:02 . 10.77.1.2' in text


_rows = st.builds(PortRow, st.text(string.ascii_lowercase, min_size=1, max_size=8).map("shv-{}".format), st.just(ROW.mac),
                  st.integers(2, 250).map("10.77.1.{}".format))  # fmt: skip


@given(st.frozensets(_rows, max_size=6), st.frozensets(_rows, max_size=6))
def test_no_row_is_dismissed_with_another(some: frozenset[PortRow], others: frozenset[PortRow]) -> None:
    both = firewall.contents(RulesWanted(ports=some | others))
    assert firewall.dismissed(both, others - some) == firewall.contents(RulesWanted(ports=some))
    assert BRIDGE in {table for table, _ in both}
