"""What a provider outside of this process is told and answers, as JSON. Pure.

Rules: one object each way. What a command says that is not understood is an error with the beginning of what it said.
"""

from __future__ import annotations

import json
from typing import Any, Final

from controller.decide.machines.types import Listed
from controller.providers.port import Join, Order, ProviderError

SAID_MAX: Final = 200


def told(verb: str, order: Order, join: Join | None = None) -> bytes:
    """`{verb, cluster, group, name, id, template: {cpus, memory_bytes, labels}}`; to make one also `join: {urls, token}`."""
    template = order.template
    found: dict[str, Any] = {
        "verb": verb, "cluster": order.cluster, "group": order.group, "name": order.node, "id": order.id,
        "template": {"cpus": template.cpus, "memory_bytes": template.memory_bytes, "labels": dict(order.labels)},
    }  # fmt: skip
    if join is not None:
        found["join"] = {"urls": list(join.urls), "token": join.token}
    return json.dumps(found).encode() + b"\n"


def told_list(cluster: str, group: str) -> bytes:
    return json.dumps({"verb": "list", "cluster": cluster, "group": group}).encode() + b"\n"


def made(who: str, answer: bytes) -> str:
    """The id out of `{"id": "..."}`; empty when nothing was said."""
    if not answer.strip():
        return ""
    found = _read(who, answer)
    machine_id = found.get("id", "") if isinstance(found, dict) else None
    if not isinstance(machine_id, str) or len(machine_id) > 255:
        raise ProviderError(f'{who}: expected {{"id": "..."}}, found {_said(answer)}')
    return machine_id


def listed(who: str, answer: bytes) -> tuple[Listed, ...]:
    """Out of `{"machines": [{"name": "...", "id": "..."}]}`. Nothing at all is no list: an empty one must be said."""
    found = _read(who, answer)
    rows = found.get("machines") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        raise ProviderError(f'{who}: expected {{"machines": [{{"name": "...", "id": "..."}}]}}, found {_said(answer)}')
    return tuple(Listed(row["name"], row.get("id", "")) for row in rows)


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("name"), str) and isinstance(row.get("id", ""), str)


def _read(who: str, answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        raise ProviderError(f"{who}: expected JSON, found {_said(answer)}") from None


def _said(answer: bytes) -> str:
    text = " ".join(answer.decode(errors="replace").split())
    return repr(text[:SAID_MAX]) if text else "nothing"
