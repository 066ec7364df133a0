"""The port behind which machines are made and deleted.

Rules: every call is idempotent by the machine's name: whoever leads next may ask again for what was asked before. A call ends
within the group's `timeout_s` or is cancelled, and a cancelled one leaves no process behind. Whatever goes wrong is a
ProviderError of one line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from controller.decide.machines.types import Listed
from model.autoscale import MachineTemplate
from model.errors import ShoalError


class ProviderError(ShoalError):
    """The provider could not, did not answer, or said something that cannot be understood."""

    code = "provider"

    def __init__(self, message: str, *, begun: bool = True) -> None:
        """`begun` is False when nothing can have been done."""
        super().__init__(message)
        self.begun = begun


@dataclass(frozen=True, slots=True)
class Join:
    """With what a machine joins: `shoal agent --join URL --token TOKEN`. The token is good for this machine's time to join."""

    urls: tuple[str, ...]
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Order:
    """One machine. `node`: the name it must join under; `id`: what the provider calls it (empty: not known, or not made yet);
    `labels`: for the agent's `--label`."""

    cluster: str
    group: str
    node: str
    template: MachineTemplate
    labels: tuple[tuple[str, str], ...] = ()
    id: str = ""


class Provider(Protocol):
    """Raises ProviderError."""

    def missing(self) -> tuple[str, ...]:
        """What it needs on this machine and does not find: a sentence each."""
        ...

    async def create(self, order: Order, join: Join) -> str:
        """The machine is being made, or is there; the provider's id for it."""
        ...

    async def delete(self, order: Order) -> None:
        """The machine goes; one that is not there is gone."""
        ...

    async def list(self, cluster: str, group: str) -> tuple[Listed, ...]:
        """The machines of the group that there are: all of them."""
        ...
