"""What runs on a machine that joins or leaves over ssh, as shell text. Pure.

Rules: a script arrives on standard input, so that no token stands in a command line. Done twice it does nothing more. A machine
that is somebody else's node is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from controller.providers.port import Join, Order

PREFIX: Final = "/opt/shoal"
OPTIONS: Final = "/etc/shoal/agent.env"
DATA: Final = "/var/lib/shoal/agent"
UNIT: Final = "/etc/systemd/system/shoal-agent.service"
PACKAGES: Final = "python3 conmon crun catatonit libnftables1 nftables iproute2"
"""What an agent needs of Debian."""
END: Final = "SHOAL-END"
AGENT_PORT: Final = 7445


def probe() -> str:
    """Says `installed` or `missing`, and the name of the node it is, if any."""
    return f"""set -eu
if [ -x {PREFIX}/bin/shoal ]; then echo installed; else echo missing; fi
{_name_of()}"""


def list_name() -> str:
    return f"set -eu\n{_name_of()}"


def _name_of() -> str:
    return f"""[ ! -e {OPTIONS} ] || sed -n 's/^OPTIONS=.*--name \\([^ ]*\\).*/node \\1/p' {OPTIONS}
"""


def packages() -> str:
    """Debian packages where programs are missing."""
    return f"""set -eu
missing=
for program in python3 conmon crun catatonit nft ip; do command -v "$program" >/dev/null || missing=1; done
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null || {{ echo "programs are missing and there is no apt-get: install {PACKAGES}" >&2; exit 1; }}
DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install {PACKAGES} >/dev/null
"""


def join(order: Order, host: str, given: Join, unit: str) -> str:
    """Writes the agent's options and starts it."""
    return f"""set -eu
umask 077
mkdir -p /etc/shoal {DATA}
cat > {OPTIONS} <<'{END}'
OPTIONS={' '.join(options(order, host, given))}
{END}
cat > {UNIT} <<'{END}'
{unit.rstrip()}
{END}
chmod 644 {UNIT}
ln -sf {PREFIX}/bin/shoal /usr/local/bin/shoal
systemctl daemon-reload
systemctl enable shoal-agent
systemctl restart shoal-agent
"""


def options(order: Order, host: str, given: Join) -> Sequence[str]:
    words = ["--name", order.node]
    if _is_address(host):
        words += ["--advertise", host, "--listen", f"[{host}]:{AGENT_PORT}" if ":" in host else f"{host}:{AGENT_PORT}"]
    words += [word for key, value in order.labels for word in ("--label", f"{key}={value}")]
    return [*words, "--join", given.urls[0] if given.urls else "", "--token", given.token]


def leave(node: str) -> str:
    """Stops the agent of this node and forgets who it was, so that the machine may join again."""
    return f"""set -eu
grep -q -e '--name {node} ' {OPTIONS} 2>/dev/null || exit 0
systemctl disable --now shoal-agent
rm -f {OPTIONS} {DATA}/node.json
rm -rf {DATA}/pki
"""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
