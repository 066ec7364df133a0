"""The names in certificates: who someone is (CN), what they are (OU) and the names their server is checked against (SAN).

Rules: one cluster CA signs everybody; the role stands in the OU and decides what a certificate may do. A gRPC client dials an
IP address but checks the server's name, hence fixed names that are no DNS names of anyone.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

ROLE_CONTROLLER: Final = "controller"
ROLE_NODE: Final = "node"
ROLE_OPERATOR: Final = "operator"
ROLE_REGISTRY: Final = "registry"
"""A registry that runs in the cluster: a server for whoever trusts the cluster's CA, and nothing more."""
ROLE_METRICS: Final = "metrics"
"""May read metrics and what there is to read them from, and nothing else."""

CONTROLLER_SERVER_NAME: Final = "controller.shoal"
"""Every controller's certificate carries it; agents override the target name with it."""
AGENT_METRICS_NAME: Final = "agent.shoal"
"""Every node's certificate carries it, for who reads the metrics of all agents and can be told one name only. It says that the
server is a node of the cluster, not which: nothing else may rely on it."""

NODE_NAME_MAX: Final = 63
_HOST_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def node_server_name(node: str) -> str:
    """The name in the certificate of a node's agent: `NODE.node.shoal`."""
    return f"{node}.node.shoal"


def registry_name_problem(name: str) -> str:
    """Why `name` cannot stand in a registry's certificate; empty when it can. No name of a daemon may: it would pass for it."""
    try:
        ipaddress.ip_address(name)
        return ""
    except ValueError:
        pass
    if len(name) > 253 or not _HOST_NAME.fullmatch(name) or name.endswith(".shoal") or name == "shoal":
        return f"name {name[:80]!r} for a registry: use a host name in small letters that does not end in .shoal, or an address"
    return ""


def node_name_problem(name: str) -> str:
    """Why `name` cannot be a node's name; empty when it can."""
    if len(name) > NODE_NAME_MAX or not _NODE_NAME.fullmatch(name) or ".." in name:
        rule = f"use 1 to {NODE_NAME_MAX} of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"
        return f"node name {name[:80]!r}: {rule}"
    return ""
