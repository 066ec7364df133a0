"""The text of /etc/hosts, /etc/hostname and /etc/resolv.conf of a container.

Rules: pure, Docker's layout. The loader refuses values with a newline; here they are cut all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.spec import ContainerSpec

_LOCAL = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)
_NAMESERVERS_MAX = 3


def hosts(hostname: str, domainname: str, addresses: Sequence[str], extra_hosts: Sequence[tuple[str, str]]) -> str:
    """`extra_hosts` as (name, address); `host-gateway` is not resolved here."""
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    rows = [*_LOCAL, *((address, name) for name, address in extra_hosts), *((address, names) for address in addresses)]
    return "".join(f"{_word(address)}\t{_line(name)}\n" for address, name in rows)


def resolv_conf(spec: ContainerSpec, nameservers: Sequence[str], host_text: str) -> str:
    """What the spec says, else what the network says, else the host's own file."""
    servers = tuple(spec.dns) or tuple(nameservers)
    if not servers and not spec.dns_search and not spec.dns_opt:
        return host_text
    if not servers:
        servers = tuple(line.split()[1] for line in host_text.splitlines() if line.startswith("nameserver") and " " in line)
    rows = [f"nameserver {_word(server)}" for server in servers[:_NAMESERVERS_MAX]]
    search = [_word(name) for name in spec.dns_search if name != "."]
    if search:
        rows.append("search " + " ".join(search))
    if spec.dns_opt or (nameservers and not spec.dns):
        # names without a dot are names here: they must not go through the search list first
        options = spec.dns_opt or ("ndots:0",)
        rows.append("options " + " ".join(_word(option) for option in options))
    return "".join(f"{row}\n" for row in rows)


def _line(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ")


def _word(text: str) -> str:
    return (text.split() or [""])[0]
