"""What the JSON of an instant query means. Pure.

Rules: nothing of the answer is repeated but Prometheus' own words about a query it cannot take, cut short and in one line.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from controller.prometheus.port import NoAnswer

WORDS_MAX: Final = 160


def read(status: int, data: bytes) -> float:
    """The value. Raises NoAnswer."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or answer.get("status") not in ("success", "error"):
        raise NoAnswer(f"what answers there is no Prometheus (HTTP {status}): its URL ends before /api/v1")
    return value_of(answer)


def value_of(answer: dict[str, Any]) -> float:
    """The value. Raises NoAnswer."""
    if answer["status"] == "error":
        words = answer.get("error")
        said = " ".join(words.split())[:WORDS_MAX] if isinstance(words, str) else ""
        raise NoAnswer(f"Prometheus refuses the query: {_printable(said)}" if said else "Prometheus refuses the query")
    data = answer.get("data")
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, dict) else (None, None)
    if kind == "scalar":
        return _number(result)
    if kind != "vector" or not isinstance(result, list):
        raise NoAnswer("the query gives no vector and no scalar: write an instant query")
    if not result:
        raise NoAnswer("the query gives nothing: does the metric exist, and was it scraped lately?")
    if len(result) > 1:
        raise NoAnswer(f"the query gives {len(result)} series: make one of them, with sum(...)")
    return _number(result[0].get("value") if isinstance(result[0], dict) else None)


def _number(pair: Any) -> float:
    """Of `[at, "text"]`."""
    text = pair[1] if isinstance(pair, list) and len(pair) == 2 else None
    try:
        number = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise NoAnswer(f"the query gives {'a negative number' if number < 0 else 'no finite number'}")
    return number


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
