"""How a person gets something done: asks a controller, then another, and looks when nobody said how it ended.

Rules: a deed is over when nothing of it can happen any more: every controller that was asked has answered or is dead. So
whatever was accepted last about an object is what it must be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any, Final

from controller.api.context import Api
from model.errors import BadInput, Conflict, NotFound, ShoalError
from sim.controller import SimController

TRIES: Final = 5
PATIENCE_S: Final = 10.0
"""Then somebody else is asked as well."""
PAUSE_S: Final = (0.2, 3.0)
CALM_S: Final = 1.0
"""So long after a lost answer the request may still arrive at the store (sim.store.LATE_S)."""


class Outcome(Enum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Deed:
    """`about`: the object nobody else does anything with meanwhile. `work`: the request. `told(answer)`: it was accepted.
    `seen(api)`: after an unknown outcome, what a person concludes from a look at the store. `once`: a second controller is
    asked only when the first can do nothing any more. `removes`: "there is no such thing" may be good news: they look."""

    about: str
    text: str
    work: Callable[[Api], Awaitable[Any]]
    told: Callable[[Any], None]
    seen: Callable[[Api], Awaitable[None]]
    once: bool = False
    removes: bool = False


class Asker:
    """`calls` and `outcomes` count, for whoever asks whether people get anything done."""

    def __init__(self, controllers: Mapping[str, SimController], rng: Random) -> None:
        self._controllers = controllers
        self._rng = rng
        self.outcomes = dict.fromkeys(Outcome, 0)

    def somebody(self) -> SimController | None:
        living = [one for one in self._controllers.values() if one.answers]
        return self._rng.choice(living) if living else None

    async def do(self, deed: Deed) -> tuple[Outcome, str]:
        """What came of it, and the refusal's sentence."""
        asked = await self._ask_around(deed)
        answers = [task.result() for task in asked if not task.exception()]
        errors = [error for task in asked if (error := task.exception()) is not None]
        if answers:
            deed.told(answers[-1])
            outcome, text = Outcome.ACCEPTED, ""
        elif errors and all(_refusal(error) for error in errors) and not (deed.removes and isinstance(errors[-1], NotFound)):
            outcome, text = Outcome.REFUSED, str(errors[-1])
        else:
            outcome, text = Outcome.UNKNOWN, str(errors[-1]) if errors else "nobody answers"
        if len(asked) != 1 or outcome is Outcome.UNKNOWN:
            await asyncio.sleep(CALM_S)
        self.outcomes[outcome] += 1
        return outcome, text

    async def _ask_around(self, deed: Deed) -> list[asyncio.Task[Any]]:
        """The requests, all of them over."""
        asked: list[asyncio.Task[Any]] = []
        for _ in range(TRIES):
            one = self.somebody()
            if one is not None:
                task = asyncio.create_task(one.ask(deed.work))
                asked.append(task)
                await asyncio.wait([task], timeout=None if deed.once else PATIENCE_S)
                if task.done() and (task.exception() is None or _refused(asked)):
                    break
            await asyncio.sleep(self._rng.uniform(*PAUSE_S))
        if asked:
            await asyncio.wait(asked)
        return asked

    async def look(self, deed: Deed) -> bool:
        """Whether somebody could be asked how it is now."""
        for _ in range(TRIES):
            one = self.somebody()
            if one is not None:
                try:
                    await one.ask(deed.seen)
                    return True
                except ShoalError:
                    pass
            await asyncio.sleep(self._rng.uniform(*PAUSE_S))
        return False


def _refused(asked: list[asyncio.Task[Any]]) -> bool:
    """Whether repeating makes no sense."""
    return all(task.done() and _refusal(task.exception()) for task in asked)


def _refusal(error: BaseException | None) -> bool:
    """The request cannot be taken as things are, and nothing was done. "Look again" is no refusal."""
    return isinstance(error, BadInput | NotFound) or (isinstance(error, Conflict) and "again" not in str(error))
