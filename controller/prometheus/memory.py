"""A Prometheus in memory: answers by query, or what is wrong with them."""

from __future__ import annotations

from controller.prometheus.answer import value_of
from controller.prometheus.port import NoAnswer


class MemoryPrometheus:
    """`answers[query]`: the elements of the vector that it gives, or why it gives none. Unknown queries give nothing."""

    def __init__(self, now: float = 0.0) -> None:
        self.answers: dict[str, list[float] | str] = {}
        self.asked: list[tuple[str, str]] = []

    async def ask(self, url: str, query: str) -> float:
        self.asked.append((url, query))
        answer = self.answers.get(query, [])
        if isinstance(answer, str):
            raise NoAnswer(answer)
        rows = [{"metric": {"number": str(at)}, "value": [0, repr(value)]} for at, value in enumerate(answer)]
        return value_of({"status": "success", "data": {"resultType": "vector", "result": rows}})
