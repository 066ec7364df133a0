"""What differs between a table of nftables as it is and as it should be.

Rules: pure; both sides are nft's own JSON listing of one table. Counts and handles are no difference, nor is the order of a
set's elements; the order of a chain's rules is. Things are named as in nft: `chain forward`, `set peers`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

_PASSING: Final = frozenset({"handle", "packets", "bytes", "expires", "used"})
_TOLD_MAX: Final = 10
_NOT_THINGS: Final = ("metainfo", "table")

Things = Mapping[str, tuple[str, ...]]
"""`chain forward` -> what it is, and its rules; `set peers` -> what it is, and its elements, sorted."""


def things(listing: Iterable[Mapping[str, Any]]) -> Things:
    """What a table consists of."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in listing:
        for kind, body in entry.items():
            if kind == "rule":
                found[f"chain {body['chain']}"] += (_text(body["expr"]),)
            elif kind not in _NOT_THINGS:
                elements = sorted(map(_text, body.get("elem", ())))
                rest = {key: value for key, value in body.items() if key != "elem"}
                found[f"{kind} {body['name']}"] = (_text(rest), *elements)
    return found


def differences(table: str, wanted: Things, live: Things | None) -> tuple[str, ...]:
    """A sentence for each thing that is not as it should be. `live` None: there is no such table."""
    if live is None:
        return (f"the nftables table {table} was gone and is back",)
    names = [name for name in sorted({*wanted, *live}) if wanted.get(name) != live.get(name)]
    sentences = [f"table {table}: {name} {_fate(name, wanted.get(name), live.get(name))}" for name in names[:_TOLD_MAX]]
    rest = len(names) - _TOLD_MAX
    return tuple(sentences) if rest <= 0 else (*sentences, f"table {table}: {rest} more things likewise")


def _fate(name: str, want: tuple[str, ...] | None, have: tuple[str, ...] | None) -> str:
    if want is None:
        return "was not ours and is removed"
    if have is None:
        return "was gone and is back"
    part = "rules" if name.startswith("chain ") else "elements"
    missing, strange = len([row for row in want if row not in have]), len([row for row in have if row not in want])
    if want[0] == have[0] and missing and not strange:
        return f"had lost {part} ({missing}); they are back"
    if want[0] == have[0] and strange and not missing:
        return f"had {part} that are not ours ({strange}); they are removed"
    return "was changed and is as it was"


def _text(value: Any) -> str:
    return json.dumps(_lasting(value), sort_keys=True)


def _lasting(value: Any) -> Any:
    """The value without what changes by itself."""
    if isinstance(value, dict):
        return {key: _members(key, inner) for key, inner in value.items() if key not in _PASSING}
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value


def _members(key: str, value: Any) -> Any:
    lasting = _lasting(value)
    return sorted(lasting, key=_text) if key == "set" and isinstance(lasting, list) else lasting
