"""Headers that hold JSON, as Docker's clients send it."""

from __future__ import annotations

import base64
import json
from typing import Any


def decoded(text: str) -> Any:
    """base64url, with or without its padding, of a JSON text. Raises ValueError."""
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
