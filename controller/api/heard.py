"""What was done to images of a node is known to the leader before it is told: what is applied next goes by it.

Rules: only the leader waits, and not for long: a node that does not say it is believed when it does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from controller.api.context import Api
from controller.api.routing import leads
from model.image_ref import parse_image_ref

PAUSE_S: Final = 0.05
TRIES: Final = 20


async def heard(api: Api, node: str, names: Mapping[str, Collection[str]]) -> None:
    """Until the node has told that each of its names stands for one of these digests there."""
    wanted = {parse_image_ref(name).canonical: digests for name, digests in names.items() if any(digests)}
    await until(api, lambda: all(api.held().means(node, name) in digests for name, digests in wanted.items()), TRIES)


async def until(api: Api, is_heard: Callable[[], bool], tries: int) -> None:
    """Returns when the leader has heard of it, or after so many looks; elsewhere at once."""
    for _ in range(tries if leads(api) else 0):
        if is_heard():
            return
        await api.clock.sleep(PAUSE_S)


def digests_in(image: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Of a node's row of an image, by name."""
    found = image.get("digests")
    return {name: (str(digest),) for name, digest in found.items() if digest} if isinstance(found, dict) else {}
