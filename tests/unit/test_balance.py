"""The load balancer's tables as data: what is in them, and that a change touches little."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.plan.balance import HELD, Backend, HostPort, Member, Published, Row, Vip, rearranged
from agent.plan.balance_book import BalanceBook, Change, Move
from agent.plan.balance_held import held
from agent.plan.balance_rules import MARK, needed_shapes, transaction, whole
from agent.plan.balance_udp import Unfinished, stale
from agent.plan.names import EndpointName, EndpointsMessage, ServiceNames
from agent.plan.network import LinkPlan
from agent.plan.nfnl import Connection, Side
from model.spec import Port

NET = "shop_default"
PLAN = LinkPlan(NET, "shb-1", "", "10.0.1.1/24", "shx-1", 1, subnet="10.0.0.0/16")
Elements = dict[tuple[str, str], str]
CHANGES = re.compile(r"^(add|delete) element inet shoal-lb (\S+) \{ (.*) \}$", re.MULTILINE)
WHOLE = re.compile(r"^ (?:set|map) (\S+) \{.* elements = \{ (.*?) \} \}$", re.MULTILINE)


def endpoint(number: int, *, ready: bool = True, node: str = "n1") -> EndpointName:
    return EndpointName(f"shop_web.{number}", f"10.0.1.{number}", node, ready, (), NET, f"192.0.2.{node[1:]}")


def service(
    *endpoints: EndpointName, vip: str = "10.0.192.9", service_id: str = "1", ports: Iterable[Port] = ()
) -> ServiceNames:
    return ServiceNames(service_id, "shop_web", ("web",), endpoints, vip, tuple(ports))


def message(*services: ServiceNames, network: str = NET, whole: bool = False, removed: Sequence[str] = ()) -> EndpointsMessage:
    return EndpointsMessage(network, whole, services, tuple(removed), 1)


def book(*messages: EndpointsMessage, plans: Sequence[LinkPlan] = (PLAN,)) -> BalanceBook:
    made = BalanceBook("n1")
    made.networks({plan.name: plan for plan in plans})
    for news in messages:
        made.take(news)
    return made


def played(elements: Elements, change: Change) -> Elements:
    """What nft would hold after the transaction; it refuses to delete what is not there and to add what is there."""
    after = dict(elements)
    for verb, name, body in CHANGES.findall(transaction(change, ())):
        for row in body.split(", "):
            key, _, value = row.partition(" : ")
            if verb == "delete":
                del after[name, key]
            else:
                assert (name, key) not in after
                after[name, key] = value
    return after


def written(made: BalanceBook) -> Elements:
    """What the whole table would hold."""
    found: Elements = {}
    for name, body in WHOLE.findall(whole(made.slots, made.members)):
        for row in body.split(", "):
            key, _, value = row.strip().partition(" : ")
            found[name, key] = value
    return found


def test_a_sleeping_service_holds_its_callers_until_a_replica_is_ready() -> None:
    ports = (Port(80, 8080), Port(53, 5300, "udp"))
    asleep = replace(service(ports=ports), sleeping=True)
    made = book(message(asleep), message(asleep, network="ingress"))
    elements = played({}, made.change())
    assert elements["vips", '"shb-1" . 10.0.192.9'] == "goto hold"
    assert elements["ports", "ipv4 . tcp . 8080"] == elements["ports", "ipv6 . udp . 5300"] == "goto hold"
    assert elements == written(made)
    assert made.called("shb-1", "tcp", "10.0.192.9", 80) == made.called("", "tcp", "192.0.2.1", 8080) == "1"
    assert made.called("shb-2", "tcp", "10.0.192.9", 80) == made.called("", "udp", "192.0.2.1", 8080) == ""
    assert made.sleeps("1")

    awake = replace(asleep, endpoints=(endpoint(1),))
    made.take(message(awake))
    made.take(message(awake, network="ingress"))
    elements = played(elements, made.change())
    assert elements["vips", '"shb-1" . 10.0.192.9'] == "goto lb-1"
    assert elements == written(made)
    assert made.called("shb-1", "tcp", "10.0.192.9", 80) == ""

    made.take(message(asleep))
    change = made.change()
    assert change.moves[0].lost == (("10.0.1.1", 0),)
    assert played(elements, change)["vips", '"shb-1" . 10.0.192.9'] == "goto hold"
    assert next(move for move in change.moves if move.after == HELD).before == (Backend("10.0.1.1", "10.0.1.1"),)


def test_a_service_that_does_not_sleep_holds_nobody() -> None:
    made = book(message(service(ports=[Port(80, 8080)])), message(service(ports=[Port(80, 8080)]), network="ingress"))
    assert played({}, made.change())["ports", "ipv4 . tcp . 8080"] == "goto none"
    assert not made.sleeps("1")


def test_a_vip_leads_to_its_ready_replicas() -> None:
    made = book(message(service(endpoint(1), endpoint(2, ready=False), endpoint(3, node="n2"))))
    change = made.change()
    assert made.slots[Vip("shb-1", "10.0.192.9")] == (Backend("10.0.1.1", "10.0.1.1"), Backend("10.0.1.3", "10.0.1.3"))
    elements = played({}, change)
    assert elements["vips", '"shb-1" . 10.0.192.9'] == "goto lb-2"
    assert elements["backends", f"10.0.192.9 . {MARK + 1:#x}"] == "10.0.1.3"
    assert needed_shapes(change) == {("lb", 2)}
    assert ("own", "10.0.1.1 . 10.0.1.1") in elements
    assert ("own", "10.0.1.3 . 10.0.1.3") not in elements
    assert ("to", "10.0.1.2") in elements


def test_without_a_ready_replica_a_vip_is_not_there_and_a_port_refuses() -> None:
    made = book(message(service(endpoint(1, ready=False))))
    made.take(message(service(endpoint(1, ready=False), ports=[Port(80, 8080)]), network="ingress"))
    elements = played({}, made.change())
    assert not [key for key in elements if key[0] == "vips"]
    assert elements["ports", "ipv4 . tcp . 8080"] == "goto none"


def test_ipv6_follows_from_ipv4() -> None:
    made = BalanceBook("n1")
    made.networks({NET: PLAN})
    made.take(EndpointsMessage(NET, True, (service(endpoint(1)),), prefix6="fd00::/96"))
    made.take(message(service(endpoint(1), ports=[Port(80, 8080)]), network="ingress"))
    made.change()
    assert made.slots[Vip("shb-1", "fd00::a00:c009")] == (Backend("10.0.1.1", "fd00::a00:101"),)
    assert made.slots[Published("tcp", 8080, "", 6)] == (Backend("10.0.1.1", "fd00::a00:101", 80),)
    assert Member("inside6", '"shx-1" . fd00::a00:0/112') in made.members
    assert made.rows()["fd00::a00:101"].address == "10.0.1.1"


def test_a_node_outside_the_network_sends_to_the_replicas_nodes_in_their_share() -> None:
    rows = [endpoint(n, node=f"n{2 + n % 2}") for n in range(1, 4)]
    news = message(service(*rows, ports=[Port(80, 8080)]), network="ingress")
    made = book(news, plans=())
    made.change()
    addresses = [(backend.address, backend.port) for backend in made.slots[Published("tcp", 8080)]]
    assert addresses == [("192.0.2.3", 8080), ("192.0.2.2", 8080), ("192.0.2.3", 8080)]
    assert Member("underlays", "192.0.2.3") in made.members
    assert made.rows() == {}


def test_local_ports_are_served_by_this_nodes_replicas_only() -> None:
    news = message(service(endpoint(1), endpoint(2, node="n2"), ports=[Port(80, 8080, local=True)]), network="ingress")
    made = book(news)
    made.change()
    assert made.slots[Published("tcp", 8080)] == (Backend("10.0.1.1", "10.0.1.1", 80),)


def test_a_port_of_one_address_is_not_given_on_to_other_nodes() -> None:
    news = message(service(endpoint(1, node="n2"), ports=[Port(80, 8080, host_ip="192.0.2.1")]), network="ingress")
    made = book(news, plans=())
    made.change()
    assert made.slots == {Published("tcp", 8080, "192.0.2.1"): ()}


def test_joining_a_network_replaces_its_nodes_by_the_replicas() -> None:
    made = book(message(service(endpoint(1, node="n2"), ports=[Port(80, 8080)]), network="ingress"), plans=())
    made.change()
    made.networks({NET: PLAN})
    made.change()
    assert made.slots[Published("tcp", 8080)] == (Backend("10.0.1.1", "10.0.1.1", 80),)
    assert Member("underlays", "192.0.2.2") not in made.members
    made.networks({})
    made.change()
    assert made.slots[Published("tcp", 8080)] == (Backend("10.0.1.1", "192.0.2.2", 8080),)


def test_leaving_a_network_forgets_its_services() -> None:
    made = book(message(service(endpoint(1))))
    elements = played({}, made.change())
    assert made.networks({}) == (NET,)
    left = played(elements, made.change())
    assert not [key for key in left if key[0] in ("vips", "backends", "own", "inside")]


def test_one_more_and_one_less_touch_few_elements_among_a_thousand() -> None:
    rows = [EndpointName(f"w.{n}", f"10.0.{n // 250}.{n % 250}", "n2") for n in range(1000)]
    made = book(message(service(*rows)))
    made.change()
    made.take(message(service(*rows[:10], *rows[11:])))
    less = made.change()
    assert transaction(less, ()).count(MARK.to_bytes(4, "big").hex()[:4]) == 3
    made.take(message(service(*rows)))
    assert transaction(made.change(), ()).count(MARK.to_bytes(4, "big").hex()[:4]) == 1


def test_a_blocked_port_is_not_in_the_tables_until_it_is_free() -> None:
    made = book(message(service(endpoint(1), ports=[Port(80, 8080)]), network="ingress"))
    assert made.ingress_ports() == {("tcp", "", 8080): "shop_web"}
    made.block(("tcp", "", 8080), blocked=True)
    made.change()
    assert Published("tcp", 8080) not in made.slots
    made.block(("tcp", "", 8080), blocked=False)
    made.change()
    assert made.slots[Published("tcp", 8080)]
    made.take(message(network="ingress", whole=True))
    assert made.ingress_ports() == {("tcp", "", 8080): ""}
    made.change()
    assert Published("tcp", 8080) not in made.slots


def test_ports_of_mode_host_come_and_go_with_their_replica() -> None:
    made = book()
    before = played({}, made.change())
    made.publish("web", [HostPort("udp", 5300, 53, "172.30.0.2")])
    elements = played(before, made.change())
    assert elements["targets", f"udp . 5300 . {MARK:#x}"] == "172.30.0.2 . 53"
    made.publish("web", [])
    after = played(elements, made.change())
    assert not [key for key in after if key[0] in ("ports", "targets", "own")]


def test_counts_of_a_gone_replica_are_kept_until_they_were_read() -> None:
    made = book(message(service(endpoint(1))))
    elements = played({}, made.change())
    made.take(message(service()))
    elements = played(elements, made.change())
    assert ("begun", "10.0.1.1") in elements
    assert made.rows() == {"10.0.1.1": Row("1", "shop_web", "shop_web.1", "10.0.1.1")}
    made.read(made.rows())
    assert ("begun", "10.0.1.1") not in played(elements, made.change())
    assert made.rows() == {}


def test_another_replica_on_the_address_begins_with_nothing() -> None:
    made = book(message(service(endpoint(1))))
    made.change()
    made.take(message(service(EndpointName("shop_web.8", "10.0.1.1", "n1"))))
    change = made.change()
    assert [member.of for member in change.fresh] == ["begun", "to", "from", "opened", "ended"]
    made.take(message(service(EndpointName("shop_web.8", "10.0.1.1", "n1", ready=False))))
    assert made.change().fresh == ()


def test_what_an_earlier_agent_left_stays_until_its_network_was_told() -> None:
    earlier = book(message(service(endpoint(1)), service(endpoint(2), vip="10.0.192.10", service_id="2")))
    earlier.take(message(service(endpoint(1), ports=[Port(80, 8080)]), network="ingress"))
    elements = played({}, earlier.change())
    made = BalanceBook("n1")
    made.inherit(earlier.slots, earlier.members)
    made.networks({NET: PLAN})
    assert made.change().moves == ()
    made.take(message(service(endpoint(1)), whole=True))
    elements = played(elements, made.change())
    assert ("vips", '"shb-1" . 10.0.192.9') in elements
    assert ("vips", '"shb-1" . 10.0.192.10') not in elements
    assert ("ports", "ipv4 . tcp . 8080") in elements
    made.take(message(network="ingress", whole=True))
    elements = played(elements, made.change())
    assert ("ports", "ipv4 . tcp . 8080") not in elements
    assert ("to", "10.0.1.2") not in elements
    assert elements == written(made)


def test_an_address_that_is_none_or_of_one_link_only_reaches_no_table() -> None:
    ports = [Port(80, 80, host_ip=text) for text in ("fe80::1%eth0 } ; flush ruleset", "10.0.0.1 }", "web")]
    made = book(message(service(endpoint(1), ports=ports), network="ingress"))
    made.publish("box", [HostPort("tcp", 90, 80, "10.0.1.7", port.host_ip) for port in ports])
    made.change()
    assert made.slots == {}


def test_what_an_earlier_agent_left_is_known_however_its_address_was_written() -> None:
    ports = [Port(80, 8080, host_ip="2001:DB8::0001")]
    made = book(message(service(endpoint(1), ports=ports), network="ingress"))
    made.change()
    assert list(made.slots) == [Published("tcp", 8080, "2001:db8::1", 6)]


def test_what_cannot_be_understood_of_an_earlier_table_is_left_out() -> None:
    listing = """table inet shoal-lb {
\tmap vips {
\t\telements = { "shb-1" . 10.0.192.9 : goto lb-1, nonsense : drop }
\t}
\tmap ports {
\t\telements = { ipv4 . tcp . http : goto in-1 }
\t}
\tmap backends {
\t\telements = { 10.0.192.9 . 0x53480000 : 10.0.1.1, 10.0.192.9 . what : 10.0.1.2, 10.0.192.9 . 0x53480001 : who }
\t}
}
"""
    assert held(listing).slots == {Vip("shb-1", "10.0.192.9"): (Backend("10.0.1.1", "10.0.1.1"),)}


def test_of_two_that_publish_one_port_the_first_has_it() -> None:
    one = service(endpoint(1), ports=[Port(80, 8080)])
    two = service(endpoint(2), service_id="2", vip="", ports=[Port(80, 8080)])
    made = book(message(two, network="ingress"))
    made.change()
    made.take(message(one, network="ingress"))
    made.change()
    assert made.slots[Published("tcp", 8080)] == (Backend("10.0.1.1", "10.0.1.1", 80),)
    made.take(message(network="ingress", removed=["1"]))
    made.change()
    assert made.slots[Published("tcp", 8080)] == (Backend("10.0.1.2", "10.0.1.2", 80),)


SETS = st.lists(st.integers(0, 12), unique=True)


@given(SETS, SETS)
def test_rearranged_slots_hold_each_backend_once_and_move_only_for_gaps(before: list[int], after: list[int]) -> None:
    old = tuple(Backend(str(n), str(n)) for n in before)
    new = tuple(Backend(str(n), str(n)) for n in after)
    slots = rearranged(old, new)
    assert sorted(slots) == sorted(new)
    stay = set(old) & set(new)
    moved = [backend for backend in stay if old.index(backend) != slots.index(backend)]
    assert len(moved) <= max(0, len(old) - len(new))


ENDPOINTS = st.lists(
    st.builds(endpoint, st.integers(1, 6), ready=st.booleans(), node=st.sampled_from(["n1", "n2"])),
    max_size=4,
    unique_by=lambda row: row.address,
)
PORTS = st.lists(
    st.builds(
        Port, st.just(80), st.sampled_from([8080, 8081]), st.sampled_from(["tcp", "udp"]),
        host_ip=st.sampled_from(["", "192.0.2.1"]), local=st.booleans(),
    ),
    max_size=2,
)  # fmt: skip
SERVICES = st.builds(
    lambda number, rows, ports: service(*rows, vip=f"10.0.192.{number}", service_id=str(number), ports=ports),
    st.integers(1, 3), ENDPOINTS, PORTS,
)  # fmt: skip
STEPS = st.one_of(
    st.builds(
        lambda network, rows, removed, all_of: message(*rows, network=network, removed=removed, whole=all_of),
        st.sampled_from([NET, "ingress"]),
        st.lists(SERVICES, max_size=2, unique_by=lambda row: row.service_id),
        st.lists(st.sampled_from("123"), max_size=1),
        st.booleans(),
    ),
    st.sampled_from(["join", "leave", "block", "free", "read", "publish", "take back"]),
)


def step(made: BalanceBook, what: EndpointsMessage | str) -> None:
    match what:
        case "join":
            made.networks({NET: PLAN})
        case "leave":
            made.networks({})
        case "block" | "free":
            made.block(("tcp", "", 8080), blocked=what == "block")
        case "read":
            made.read(made.rows())
        case "publish":
            made.publish("web", [HostPort("tcp", 8081, 80, "10.0.1.9")])
        case "take back":
            made.publish("web", [])
        case EndpointsMessage():
            made.take(what)


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=12), st.lists(st.booleans(), min_size=12, max_size=12))
def test_any_changes_lead_to_what_would_be_written_from_nothing(
    steps: list[EndpointsMessage | str], applied: list[bool]
) -> None:
    made = BalanceBook("n1")
    elements: Elements = {}
    for what, now in zip(steps, applied, strict=False):
        step(made, what)
        if now:
            elements = played(elements, made.change())
    elements = played(elements, made.change())
    assert elements == written(made)
    made.read(made.rows())
    made.change()
    anew = BalanceBook("n1")
    for what in steps:
        step(anew, what)
    anew.read(anew.rows())
    anew.change()
    assert set(made.members) == set(anew.members)
    assert {f: sorted(s) for f, s in made.slots.items()} == {f: sorted(s) for f, s in anew.slots.items()}
    assert all(len(set(slots)) == len(slots) for slots in made.slots.values())
    assert made.change() == Change()


OTHER = LinkPlan("back", "shb-2", "", "10.1.1.1/24", "shx-2", 2, subnet="10.1.0.0/16", prefix6="fd00:1::/96")
PLANNED: list[tuple[LinkPlan, ...]] = [(), (PLAN,), (OTHER,), (OTHER, PLAN)]


def tellings(plans: Sequence[LinkPlan], services: Sequence[ServiceNames]) -> list[EndpointsMessage | tuple[LinkPlan, ...]]:
    """All that an agent is told after its start, when `services` are there. No address is on two networks."""
    beside = [replace(row, vip=row.vip.replace("10.0.", "10.1.")) for row in services]
    rows = {NET: services, OTHER.name: beside, "ingress": services}
    names = [*(plan.name for plan in plans), "ingress"]
    return [tuple(plans), *(message(*rows[name], network=name, whole=True) for name in names)]


@settings(max_examples=300)
@given(
    st.lists(st.lists(STEPS | st.sampled_from(PLANNED), max_size=6), min_size=1, max_size=3),
    st.sampled_from(PLANNED),
    st.lists(SERVICES, max_size=2, unique_by=lambda row: row.service_id),
    st.randoms(use_true_random=False),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_wherever_agents_were_killed_the_next_one_that_heard_all_holds_what_a_first_one_would(
    killed: list[list[EndpointsMessage | str | tuple[LinkPlan, ...]]],
    plans: tuple[LinkPlan, ...],
    services: list[ServiceNames],
    order: Random,
    applied: list[bool],
) -> None:
    made, elements = BalanceBook("n1"), Elements()
    for steps in killed:
        for what in steps:
            told(made, what)
            elements = played(elements, made.change())
        left, made = made, BalanceBook("n1")
        made.inherit(left.slots, left.members)
    heard = tellings(plans, services)
    anew = BalanceBook("n1")
    for what in heard:
        told(anew, what)
    anew.change()
    order.shuffle(heard)
    for what, now in zip(heard, applied, strict=False):
        told(made, what)
        if now:
            elements = played(elements, made.change())
    elements = played(elements, made.change())
    assert elements == written(made)
    assert set(made.members) == set(anew.members)
    assert {f: sorted(s) for f, s in made.slots.items()} == {f: sorted(s) for f, s in anew.slots.items()}


def told(made: BalanceBook, what: EndpointsMessage | str | tuple[LinkPlan, ...]) -> None:
    if isinstance(what, tuple):
        made.networks({plan.name: plan for plan in what})
    else:
        step(made, what)


def test_without_networks_nothing_an_earlier_agent_left_stays_once_that_is_known() -> None:
    earlier = book(message(service(endpoint(1), ports=[Port(80, 8080)]), whole=True), plans=(PLAN, OTHER))
    elements = played({}, earlier.change())
    made = BalanceBook("n1")
    made.inherit(earlier.slots, earlier.members)
    made.take(message(network="ingress", whole=True))
    assert ("vips", '"shb-1" . 10.0.192.9') in played(elements, made.change()), "its networks may be yet to come"
    made.networks({})
    assert played(elements, made.change()) == {}


def udp(asked: str, answered: str, client: str = "10.0.1.9", number: int = 53) -> Connection:
    return Connection(17, Side(client, asked, 999, number), Side(answered, client, number, 999), b"", b"", False)


def test_udp_connections_to_what_went_are_stale_and_others_are_not() -> None:
    one, two = Backend("10.0.1.1", "10.0.1.1"), Backend("10.0.1.2", "10.0.1.2")
    gone = stale([Move(Vip("shb-1", "10.0.192.9"), (one, two), (two,))])
    assert gone.looks() == [(Side(target="10.0.192.9"), False)]
    assert gone.concerns(udp("10.0.192.9", "10.0.1.1"))
    assert not gone.concerns(udp("10.0.192.9", "10.0.1.2"))
    assert not gone.concerns(udp("10.0.192.8", "10.0.1.1"))


def test_a_new_udp_port_makes_what_was_not_translated_stale() -> None:
    backend = Backend("10.0.1.1", "10.0.1.1", 53)
    fresh = stale([Move(Published("udp", 53), None, (backend,)), Move(Published("tcp", 53), (backend,), None)])
    assert fresh.looks() == [(Side(target_port=53), False)]
    assert fresh.concerns(udp("192.0.2.1", "192.0.2.1"))
    masqueraded = replace(udp("9.9.9.9", "9.9.9.9"), back=Side("9.9.9.9", "192.0.2.1", 53, 999))
    assert not fresh.concerns(masqueraded)


def test_many_losses_are_looked_for_at_once() -> None:
    backend = Backend("10.0.1.1", "10.0.1.1")
    gone = stale(Move(Vip("shb-1", f"10.0.192.{n}"), (backend,), None) for n in range(9))
    assert gone.looks() == [(Side(), False)]
    assert gone.concerns(udp("10.0.192.8", "10.0.1.1"))


def test_a_frontend_that_lost_twice_before_it_was_looked_at_lost_both() -> None:
    one, two = Backend("10.0.1.1", "10.0.1.1"), Backend("10.0.1.2", "10.0.1.2")
    vip = Vip("shb-1", "10.0.192.9")
    gone = stale([Move(vip, (one, two), (two,)), Move(vip, (two,), ())])
    assert gone.concerns(udp("10.0.192.9", "10.0.1.1"))
    assert gone.concerns(udp("10.0.192.9", "10.0.1.2"))


def test_what_a_killed_agent_did_not_come_to_is_seen_from_the_tables() -> None:
    made = book(message(service(endpoint(1)), whole=True))
    made.take(message(service(endpoint(1), ports=[Port(53, 5300, "udp")]), network="ingress", whole=True))
    made.change()
    left = Unfinished(made.slots, made.view.subnets())
    stale_ones = {
        "another backend of the address": udp("10.0.192.9", "10.0.1.2"),
        "of an address that is gone": udp("10.0.192.8", "10.0.1.1"),
        "another backend of the port": replace(udp("192.0.2.1", "10.0.1.2", number=5300), back=at("10.0.1.2", 53)),
        "from before the port": udp("192.0.2.1", "192.0.2.1", number=5300),
        "of a port that is gone": replace(udp("192.0.2.1", "10.0.1.1", number=5301), back=at("10.0.1.1", 53)),
    }
    others = {
        "to the backend": udp("10.0.192.9", "10.0.1.1"),
        "to the port's backend": replace(udp("192.0.2.1", "10.0.1.1", number=5300), back=at("10.0.1.1", 53)),
        "translated by somebody else": udp("192.0.2.1", "172.17.0.2"),
        "past all tables": udp("10.0.1.1", "10.0.1.1"),
        "on its way out": replace(udp("9.9.9.9", "9.9.9.9"), back=Side("9.9.9.9", "192.0.2.1", 53, 999)),
    }
    assert [name for name, found in stale_ones.items() if not left.concerns(found)] == []
    assert [name for name, found in others.items() if left.concerns(found)] == []


def at(address: str, number: int) -> Side:
    return Side(address, "10.0.1.9", number, 999)
