"""`with connected() as client`: the client of the current context."""

from __future__ import annotations

from cli import context
from cli.client import Client


def connected() -> Client:
    return Client(context.load())
