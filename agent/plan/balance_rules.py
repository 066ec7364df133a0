"""The load balancer's nftables text: one table of our own, changed by single elements.

Rules: pure. A service's address is looked up by the bridge a packet came in by, so it does not exist for other networks. A slot
is chosen at random and carried in the packet's mark from one rule to the next, with a number of our own above it, and taken off
again before routing. The second look-up, for slot 0, is for a packet that met the slots of before and the choice of after a
change. Counted are translated packets only, in prerouting and postrouting, which each packet passes once. A TCP connection has
opened when its replica agreed, and has ended when that will send no more, or either broke it off; a bit of the connection mark
says that it is open, so that each counts once, whatever is sent again. The other bits of that mark are others'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from agent.plan.balance import HELD, Backend, Frontend, Member, Vip
from agent.plan.balance_book import Change, Move, Slots

TABLE: Final = "inet shoal-lb"
MARK: Final = 0x53480000
OPEN: Final = 0x10000000
"""In the mark of a connection, not of a packet."""
_NONE: Final = "none"
HOLD: Final = "hold"
LOG_GROUP: Final = 0x5348
"""Of netfilter's log, where those who call a sleeping service are noticed."""
_WITH_PORTS: Final = "meta l4proto { tcp, udp, sctp }"
# By type, not `typeof`: with that, nft 1.0.6 refuses rules that use a map which is already there ("conflicting protocols").
SETS: Final = {
    "begun": "type ipv4_addr; counter;",
    "begun6": "type ipv6_addr; counter;",
    "to": "type ipv4_addr; counter;",
    "to6": "type ipv6_addr; counter;",
    "from": "type ipv4_addr; counter;",
    "from6": "type ipv6_addr; counter;",
    "opened": "type ipv4_addr; counter;",
    "opened6": "type ipv6_addr; counter;",
    "ended": "type ipv4_addr; counter;",
    "ended6": "type ipv6_addr; counter;",
    "own": "type ipv4_addr . ipv4_addr;",
    "own6": "type ipv6_addr . ipv6_addr;",
    "underlays": "type ipv4_addr;",
    "inside": "type ifname . ipv4_addr; flags interval;",
    "inside6": "type ifname . ipv6_addr; flags interval;",
}
_MAPS: Final = {
    "vips": "type ifname . ipv4_addr : verdict;",
    "vips6": "type ifname . ipv6_addr : verdict;",
    "backends": "type ipv4_addr . mark : ipv4_addr;",
    "backends6": "type ipv6_addr . mark : ipv6_addr;",
    "ports": "type nf_proto . inet_proto . inet_service : verdict;",
    "ports-at": "type inet_proto . ipv4_addr . inet_service : verdict;",
    "ports-at6": "type inet_proto . ipv6_addr . inet_service : verdict;",
    "targets": "type inet_proto . inet_service . mark : ipv4_addr . inet_service;",
    "targets6": "type inet_proto . inet_service . mark : ipv6_addr . inet_service;",
    "targets-at": "type inet_proto . ipv4_addr . inet_service . mark : ipv4_addr . inet_service;",
    "targets-at6": "type inet_proto . ipv6_addr . inet_service . mark : ipv6_addr . inet_service;",
}
_CHAINS: Final = f"""
 chain {_NONE} {{ reject with icmpx type port-unreachable; }}
 chain {HOLD} {{
  {_WITH_PORTS} limit rate 200/second burst 200 packets log group {LOG_GROUP} snaplen 80
  drop
 }}
 chain published {{
  meta l4proto . ip daddr . th dport vmap @ports-at
  meta l4proto . ip6 daddr . th dport vmap @ports-at6
  meta nfproto . meta l4proto . th dport vmap @ports
 }}
 chain outsiders {{ type filter hook prerouting priority raw; policy accept;
  iifname != "lo" ip daddr 127.0.0.0/8 drop
  iifname != "lo" ip saddr 127.0.0.0/8 drop
 }}
 chain prerouting {{ type nat hook prerouting priority dstnat; policy accept;
  iifname . ip daddr vmap @vips
  iifname . ip6 daddr vmap @vips6
  fib daddr type local goto published
 }}
 chain output {{ type nat hook output priority -100; policy accept;
  ip6 daddr ::1 accept
  fib daddr type local goto published
 }}
 chain arrived {{ type filter hook prerouting priority dstnat + 1; policy accept;
  meta mark & 0xffff0000 == {MARK:#x} meta mark set 0
  ct status dnat ct direction reply ip saddr @from
  ct status dnat ct direction reply ip6 saddr @from6
  tcp flags & (fin | syn | rst) != 0 ct status dnat ct direction reply jump turned
 }}
 chain turned {{
  tcp flags & (fin | rst) != 0 goto turned-off
  ct mark & {OPEN:#x} != 0 return
  ip saddr @opened ct mark set ct mark | {OPEN:#x} return
  ip6 saddr @opened6 ct mark set ct mark | {OPEN:#x}
 }}
 chain turned-off {{
  ct mark & {OPEN:#x} == 0 return
  ip saddr @ended ct mark set ct mark & {~OPEN & 0xFFFFFFFF:#x} return
  ip6 saddr @ended6 ct mark set ct mark & {~OPEN & 0xFFFFFFFF:#x}
 }}
 chain leaving {{ type filter hook postrouting priority srcnat - 2; policy accept;
  ct status dnat ct direction original ip daddr @to
  ct status dnat ct direction original ip6 daddr @to6
  tcp flags & rst != 0 ct status dnat ct direction original ct mark & {OPEN:#x} != 0 jump broken-off
 }}
 chain broken-off {{
  ip daddr @ended ct mark set ct mark & {~OPEN & 0xFFFFFFFF:#x} return
  ip6 daddr @ended6 ct mark set ct mark & {~OPEN & 0xFFFFFFFF:#x}
 }}
 chain postrouting {{ type nat hook postrouting priority srcnat - 1; policy accept;
  ct status & dnat == 0 accept
  ip daddr @begun
  ip6 daddr @begun6
  ip saddr 127.0.0.0/8 oifname "sh*" masquerade
  ip saddr . ip daddr @own masquerade
  ip6 saddr . ip6 daddr @own6 masquerade
  oifname "shx-*" meta nfproto ipv4 oifname . ip saddr != @inside masquerade
  oifname "shx-*" meta nfproto ipv6 oifname . ip6 saddr != @inside6 masquerade
  oifname != "sh*" ip daddr @underlays masquerade
 }}
"""

Shape = tuple[str, int]
"""Kind of a chain and its number of slots."""


def whole(
    slots: Mapping[Frontend, Slots],
    members: Iterable[Member],
    shapes: Iterable[Shape] = (),
    counts: Mapping[Member, str] | None = None,
) -> str:
    """The table with all it must hold, in the place of whatever was there. `shapes`: chains that are there though nothing needs
    them now; `counts`: what counters begin with."""
    rows: dict[str, list[str]] = {}
    for frontend, backends in slots.items():
        kind, key, value = _entry(frontend, backends)
        rows.setdefault(kind, []).append(f"{key} : {value}")
        for slot, backend in enumerate(_real(backends)):
            kind, key, value = _slot(frontend, slot, backend)
            rows.setdefault(kind, []).append(f"{key} : {value}")
    for member in members:
        rows.setdefault(member.of, []).append(f"{member.key} {counts.get(member, '') if counts else ''}")
    lines = [f"add table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{"]
    lines += [f" set {name} {{ {kind}{_elements(rows.get(name, ()))} }}" for name, kind in SETS.items()]
    lines += [f" map {name} {{ {kind}{_elements(rows.get(name, ()))} }}" for name, kind in _MAPS.items()]
    lines += [_chain(shape) for shape in sorted({*shapes, *shapes_of(slots)})]
    return "\n".join([*lines, _CHAINS, "}"])


def _elements(rows: Iterable[str]) -> str:
    text = ", ".join(rows)
    return f" elements = {{ {text} }}" if text else ""


def transaction(change: Change, shapes: Iterable[Shape]) -> str:
    """A difference; `shapes`: the chains that are needed and not there yet."""
    gone: dict[str, list[str]] = {}
    come: dict[str, list[str]] = {}
    for member in (*change.went, *change.fresh):
        gone.setdefault(member.of, []).append(member.key)
    for member in (*change.came, *change.fresh):
        come.setdefault(member.of, []).append(member.key)
    for move in change.moves:
        for kind, key in _gone(move):
            gone.setdefault(kind, []).append(key)
        for kind, key, value in _come(move):
            come.setdefault(kind, []).append(f"{key} : {value}")
    lines = [f"table {TABLE} {{\n{_chain(shape)}\n}}" for shape in shapes]
    lines += [f"delete element {TABLE} {kind} {{ {', '.join(keys)} }}" for kind, keys in gone.items()]
    lines += [f"add element {TABLE} {kind} {{ {', '.join(rows)} }}" for kind, rows in come.items()]
    return "\n".join(lines)


def shapes_of(slots: Mapping[Frontend, Slots]) -> set[Shape]:
    return {shape_of(frontend, len(backends)) for frontend, backends in slots.items() if _real(backends)}


def needed_shapes(change: Change) -> set[Shape]:
    wanted = ((move.frontend, _real(move.after)) for move in change.moves)
    return {shape_of(frontend, len(slots)) for frontend, slots in wanted if slots}


def shape_of(frontend: Frontend, slots: int) -> Shape:
    return ("lb" if isinstance(frontend, Vip) else "at" if frontend.host_ip else "in"), slots


def removal() -> str:
    """Takes the table away, also when there is none."""
    return f"add table {TABLE}\ndelete table {TABLE}"


def _gone(move: Move) -> Iterator[tuple[str, str]]:
    before, after = move.before, move.after
    if before is not None and (after is None or _leads(move.frontend, before) != _leads(move.frontend, after)):
        kind, key, _ = _entry(move.frontend, before)
        yield kind, key
    for slot, backend in enumerate(_real(before)):
        if after is None or slot >= len(after) or after[slot] != backend:
            kind, key, _ = _slot(move.frontend, slot, backend)
            yield kind, key


def _come(move: Move) -> Iterator[tuple[str, str, str]]:
    before, after = move.before, move.after
    if after is None:
        return
    for slot, backend in enumerate(_real(after)):
        if before is None or slot >= len(before) or before[slot] != backend:
            yield _slot(move.frontend, slot, backend)
    if before is None or _leads(move.frontend, before) != _leads(move.frontend, after):
        yield _entry(move.frontend, after)


def _entry(frontend: Frontend, backends: Slots) -> tuple[str, str, str]:
    """The map a packet is first looked up in, and where it goes on."""
    verdict = f"goto {_leads(frontend, backends)}"
    if isinstance(frontend, Vip):
        return f"vips{_six(frontend.address)}", f'"{frontend.bridge}" . {frontend.address}', verdict
    if frontend.host_ip:
        key = f"{frontend.protocol} . {frontend.host_ip} . {frontend.published}"
        return f"ports-at{_six(frontend.host_ip)}", key, verdict
    return "ports", f"ipv{frontend.family} . {frontend.protocol} . {frontend.published}", verdict


def _leads(frontend: Frontend, backends: Slots) -> str:
    """The chain that decides about the frontend's packets."""
    kind, slots = shape_of(frontend, len(backends))
    return HOLD if backends == HELD else f"{kind}-{slots}" if slots else _NONE


def _real(backends: Slots | None) -> Slots:
    """Those that stand in a map."""
    return () if backends is None or backends == HELD else backends


def _slot(frontend: Frontend, slot: int, backend: Backend) -> tuple[str, str, str]:
    """The map with the slots."""
    mark = f"{MARK + slot:#x}"
    if isinstance(frontend, Vip):
        return f"backends{_six(frontend.address)}", f"{frontend.address} . {mark}", backend.address
    value = f"{backend.address} . {backend.port}"
    if frontend.host_ip:
        key = f"{frontend.protocol} . {frontend.host_ip} . {frontend.published} . {mark}"
        return f"targets-at{_six(frontend.host_ip)}", key, value
    return f"targets{'6' if frontend.family == 6 else ''}", f"{frontend.protocol} . {frontend.published} . {mark}", value


def _six(address: str) -> str:
    return "6" if ":" in address else ""


def _chain(shape: Shape) -> str:
    """One choice among `slots`, and where each leads."""
    kind, slots = shape
    match kind:
        case "lb":
            steps = ["dnat ip to ip daddr . meta mark map @backends", "dnat ip6 to ip6 daddr . meta mark map @backends6"]
        case "in":
            key = "meta l4proto . th dport . meta mark"
            steps = [f"{_WITH_PORTS} dnat ip{six} to {key} map @targets{six}" for six in ("", "6")]
        case _:
            steps = [
                f"{_WITH_PORTS} dnat ip{six} to meta l4proto . ip{six} daddr . th dport . meta mark map @targets-at{six}"
                for six in ("", "6")
            ]
    rules = [f"meta mark set numgen random mod {slots} offset {MARK}", *steps, f"meta mark set {MARK}", *steps]
    return f"chain {kind}-{slots} {{\n  " + "\n  ".join(rules) + "\n }"
