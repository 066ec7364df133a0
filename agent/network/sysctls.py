"""The node's own kernel settings that networks need: forwarding, no redirects, bridged frames out of iptables.

Rules: only what differs is written. IPv6 forwarding is switched on with the first network that has IPv6 and stays on; links
that took their addresses from router advertisements go on doing so (accept_ra 2), which the kernel else ends with forwarding.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/proc/sys")
_ALWAYS: Final = (
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/bridge/bridge-nf-call-iptables", "0"),
)
_WITH_IPV6: Final = (("net/ipv6/conf/all/forwarding", "1"), ("net/bridge/bridge-nf-call-ip6tables", "0"))
IPV6: Final = (_ROOT / "net/ipv6").exists()
"""Whether this kernel has IPv6."""


def hold(*, ipv6: bool) -> list[str]:
    """Set what is not set; the names of what was changed. A setting of a module that is not loaded is no concern."""
    changed = [name for name, value in _ALWAYS if _put(name, value)]
    if ipv6:
        _keep_advertisements()
        changed += [name for name, value in _WITH_IPV6 if _put(name, value)]
    return [name.replace("/", ".") for name in changed]


def allow_ipv6(link: str) -> None:
    """Also on machines where IPv6 is switched off for new links."""
    _put(f"net/ipv6/conf/{link}/disable_ipv6", "0")


def _keep_advertisements() -> None:
    if _read("net/ipv6/conf/all/forwarding") == "1":
        return
    for folder in (_ROOT / "net/ipv6/conf").iterdir():
        if folder.name != "all" and not folder.name.startswith("sh") and _read(f"net/ipv6/conf/{folder.name}/accept_ra") == "1":
            _put(f"net/ipv6/conf/{folder.name}/accept_ra", "2")


def _read(name: str) -> str:
    try:
        return (_ROOT / name).read_text().strip()
    except OSError:
        return ""


def _put(name: str, value: str) -> bool:
    before = _read(name)
    if before in ("", value):
        return False
    with contextlib.suppress(FileNotFoundError):
        (_ROOT / name).write_text(value)
    return True
