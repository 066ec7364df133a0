"""Who answers PromQL.

Rules: one number or one sentence why there is none; never anything else an answering server has sent, since whoever writes a
policy chooses the server.
"""

from __future__ import annotations

from typing import Protocol

from model.errors import ShoalError


class NoAnswer(ShoalError):
    """Why a query gives no number: one line."""

    code = "prometheus"


class Prometheus(Protocol):
    async def ask(self, url: str, query: str) -> float:
        """The value of an instant query: a scalar, or the only element of a vector. Raises NoAnswer."""
