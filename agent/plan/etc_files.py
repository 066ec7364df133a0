"""The text of /etc/hosts, /etc/hostname and /etc/resolv.conf of a container.

Rules: pure, Docker's layout. The loader refuses values with a newline; here they are cut all the same. A container that is told
our name server is told no other: the name server asks the ones of its `dns`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from model.spec import ContainerSpec

HOST_GATEWAY = "host-gateway"
_LOCAL = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)
_NAMESERVERS_MAX = 3


def hosts(
    hostname: str, domainname: str, addresses: Sequence[str], extra_hosts: Sequence[tuple[str, str]], host_gateway: str = ""
) -> str:
    """`extra_hosts` as (name, address); `host-gateway` stands for `host_gateway`, and is left out without one."""
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    extra = ((host_gateway if address == HOST_GATEWAY else address, name) for name, address in extra_hosts)
    rows = [*_LOCAL, *(row for row in extra if row[0]), *((address, names) for address in addresses)]
    return "".join(f"{_word(address)}\t{_line(name)}\n" for address, name in rows)


def resolv_conf(spec: ContainerSpec, nameservers: Sequence[str], host_text: str, forwarder: str = "") -> str:
    """`nameservers` are our own; without them what the spec says, else the host's file. When the host's servers answer only on
    the host itself (127.0.0.53), `forwarder` is asked instead."""
    if nameservers:
        # names without a dot are names here: they must not go through the search list first
        return _text(nameservers, _search(spec), spec.dns_opt or ("ndots:0",))
    theirs = tuple(words[1] for words in map(str.split, host_text.splitlines()) if words[:1] == ["nameserver"] and words[1:])
    unreachable = bool(forwarder) and all(_loopback(server) for server in theirs)
    servers = spec.dns or ((forwarder,) if unreachable else theirs)
    if spec.dns or spec.dns_search or spec.dns_opt:
        return _text(servers, _search(spec), spec.dns_opt)
    if not unreachable:
        return host_text
    others = [line for line in host_text.splitlines() if line.split()[:1] in (["search"], ["domain"], ["options"])]
    return "".join(f"{row}\n" for row in (f"nameserver {_word(forwarder)}", *others))


def _text(servers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> str:
    rows = [f"nameserver {_word(server)}" for server in servers[:_NAMESERVERS_MAX]]
    if search:
        rows.append("search " + " ".join(search))
    if options:
        rows.append("options " + " ".join(_word(option) for option in options))
    return "".join(f"{row}\n" for row in rows)


def _search(spec: ContainerSpec) -> list[str]:
    return [_word(name) for name in spec.dns_search if name != "."]


def _loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _line(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ")


def _word(text: str) -> str:
    return (text.split() or [""])[0]
