"""`shoal controller`: flags, logging, signals; controller/wiring.py does the rest.

Rules: one line a record, no secrets. SIGTERM and SIGINT end it in order; READY is told to systemd when the API answers.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence

from controller.config import Config, parse
from controller.wiring import controller
from model.errors import ShoalError

log = logging.getLogger(__name__)

COLLECT_AFTER = (20_000, 20, 20)
"""A decision about a million replicas makes several million objects that stay: at Python's own numbers the collector takes two
thirds of its time."""
SWITCH_S = 0.0001
"""While a long decision runs in its thread, whoever reads or writes a socket waits so long for its turn: of two thousand
heartbeats a second each does both."""


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", "\\n") if record.exc_info is None else super().format(record)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until a signal; 0 then, 1 when it could not start or a part of it died."""
    try:
        config = parse(sys.argv[1:] if argv is None else argv)
    except ShoalError as error:
        print(f"shoal controller: {error}", file=sys.stderr)
        return 2
    _log_to_stderr(config.log_level)
    try:
        asyncio.run(_run(config))
    except (ShoalError, BaseExceptionGroup) as error:
        return _failed(error)
    return 0


def _failed(error: BaseException) -> int:
    """Says what was expected in one line each; anything else is a fault of ours and shows its trace."""
    leaves = _leaves(error)
    if not all(isinstance(leaf, ShoalError) for leaf in leaves):
        log.error("the controller failed", exc_info=error)
        return 1
    for leaf in leaves:
        log.error("%s", leaf)
    return 1


async def _run(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with controller(config) as running:
        log.info("controller %s: API %s, agents %s", config.name, running.api_url, running.dispatch_address)
        notify("READY=1")
        _spare_the_collector()
        await stop.wait()
        notify("STOPPING=1")
        log.info("controller %s: stopping", config.name)


def _spare_the_collector() -> None:
    """What the imports left lives as long as the process: 58,000 objects, 50 ms of a stopped loop in every full collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    sys.setswitchinterval(SWITCH_S)


def notify(state: str) -> None:
    """Tells systemd, if it asked to be told."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect("\0" + path[1:] if path.startswith("@") else path)
        channel.send(state.encode())


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for quiet in ("uvicorn", "uvicorn.error", "asyncio"):
        logging.getLogger(quiet).setLevel(logging.WARNING)


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in _leaves(inner)]


if __name__ == "__main__":
    sys.exit(main())
