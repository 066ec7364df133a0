"""Words people give to nodes, by which files ask for them: kinds of generic resources, keys of labels.

Rules: what looks like a slip (`GPU!=1`, `foo-`) is refused where it is written; what is there already can be removed.
"""

from __future__ import annotations

import re
from typing import Final

_KIND: Final = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,253}[a-zA-Z0-9])?")
_KEY: Final = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_./:-]{0,253}[a-zA-Z0-9])?")
_ENDS: Final = "beginning and ending with a letter or digit"


def kind_problem(kind: str) -> str:
    """Why no generic resource can be called so; empty when it can."""
    return "" if _KIND.fullmatch(kind) else f"found {kind[:80]!r}, expected letters, digits, '-', '_' and '.', {_ENDS}"


def key_problem(key: str) -> str:
    """Why no label of a node can be called so; empty when it can."""
    return "" if _KEY.fullmatch(key) else f"found {key[:80]!r}, expected letters, digits and -_./:, {_ENDS}"
