"""Before a service is written: what its image stands for is found out, and stands in its spec from then on.

Rules: what is decided is decided in controller/decide/pinning.py. All images of a request are asked for at once, each once.
Whatever cannot be found out is a warning in the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from controller.api.context import Api
from controller.api.digests import Digests
from controller.api.registry_logins import Logins, login_for
from controller.decide.pinning import Pin, Resolve, Wish, asks_registry, pin, pinned, pinned_first, wish_of
from controller.sealing import Login
from model.errors import ShoalError
from model.image_ref import parse_image_ref
from model.spec import ServiceSpec

_Asked = tuple[str, Login | None]


@dataclass(frozen=True, slots=True)
class Pinned:
    """`absent`: images that no node has, as they were written. `same_bytes`: names of services that are pinned for the first
    time, to what all their containers run."""

    services: tuple[ServiceSpec, ...]
    warnings: tuple[str, ...] = ()
    absent: frozenset[str] = frozenset()
    same_bytes: frozenset[str] = frozenset()


async def pin_services(api: Api, specs: Sequence[ServiceSpec], resolve: Resolve, logins: Logins) -> Pinned:
    """As they are where nobody can be asked (tests, the simulation)."""
    if api.digests is None:
        return Pinned(tuple(specs))
    names = {spec.name: parse_image_ref(spec.container.image).canonical for spec in specs}
    held = await api.digests.held(frozenset(names.values()))
    known = api.snapshot().of("services")
    wishes = {spec.name: wish_of(spec, known.get(spec.name), resolve, held.get(names[spec.name], ())) for spec in specs}
    asked = {name: (names[name], login_for(logins, wish.image)) for name, wish in wishes.items() if asks_registry(wish)}
    answers = await _at_registries(api.digests, asked.values())
    pins = {name: _pin(wish, answers.get(asked[name]) if name in asked else None) for name, wish in wishes.items()}
    digests = {name: found.digest for name, found in pins.items()}
    warnings = tuple(dict.fromkeys(found.warning for found in pins.values() if found.warning))
    absent = frozenset(spec.container.image for spec in specs if names[spec.name] not in held)
    services = tuple(pinned(spec, digests) for spec in specs)
    fresh = {spec.name: spec.container.image_digest for spec in services if pinned_first(spec, known.get(spec.name))}
    run_by = await api.digests.run_by(fresh)
    same_bytes = frozenset(name for name, digest in fresh.items() if digest in run_by.get(name, ()))
    return Pinned(services, warnings, absent, same_bytes)


async def _at_registries(digests: Digests, asked: Collection[_Asked]) -> Mapping[_Asked, str | ShoalError]:
    async def one(row: _Asked) -> str | ShoalError:
        try:
            return await digests.at_registry(*row)
        except ShoalError as error:
            return error

    rows = list(dict.fromkeys(asked))
    return dict(zip(rows, await asyncio.gather(*map(one, rows)), strict=True))


def _pin(wish: Wish, answer: str | ShoalError | None) -> Pin:
    return pin(wish, problem=str(answer)) if isinstance(answer, ShoalError) else pin(wish, answer or "")
