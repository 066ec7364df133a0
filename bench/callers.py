"""People outside of the cluster who ask a published port over and over, on a new connection each time."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence
from typing import Self


class Callers:
    """`threads` ask the addresses in turn, each with `pause_s` between two requests, as long as the `with` block lasts; with a
    `total`, which they share, `join()` waits for the last request.

    `asked`: requests so far. `failed`: those without their 200, one line each. `first_seen`: seconds until each replica first
    answered, by the first word of its answer.
    """

    def __init__(
        self, addresses: Sequence[str], port: int, *, threads: int = 2, pause_s: float = 0.005, total: int = 0
    ) -> None:
        self._addresses, self._port, self._pause_s = addresses, port, pause_s
        self._ending = threading.Event()
        self._left = threading.Semaphore(total) if total else None
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]
        self._lock = threading.Lock()
        self.asked = 0
        self.failed: list[str] = []
        self.first_seen: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=None if self._left and not self._ending.is_set() else 30)

    def busy(self) -> bool:
        """Some of the `total` are still to be asked."""
        return any(thread.is_alive() for thread in self._threads)

    def _run(self, number: int) -> None:
        while not self._ending.wait(self._pause_s) and (self._left is None or self._left.acquire(blocking=False)):
            number += 1
            address, begun = self._addresses[number % len(self._addresses)], time.monotonic()
            try:
                name = self._ask(address)
                self.first_seen.setdefault(name, time.monotonic() - self.began)
            except (OSError, http.client.HTTPException, IndexError) as error:
                self.failed.append(f"{address} after {begun - self.began:.2f} s: {error!r}")
            with self._lock:
                self.asked += 1

    def _ask(self, address: str) -> str:
        """Who answers."""
        connection = http.client.HTTPConnection(address, self._port, timeout=20)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            raise http.client.HTTPException(f"status {answer.status}")
        return text.split()[0]
