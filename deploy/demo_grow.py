"""The demo's second half: a load comes and goes, replicas follow the load, and machines follow the replicas.

Rules: nobody scales anything here: the load is all that is done from outside. What is shown was asked of the cluster
(`shoal top`) or counted by the callers, once a second. Each caller waits for its answer before it asks again, so a service that
is too small is saturated and nothing piles up behind it.
"""

from __future__ import annotations

import csv
import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Final, Protocol

EXAMPLE: Final = Path(__file__).resolve().parent / "examples" / "grow"
SERVICE: Final = "grow_web"
PORT: Final = 8085
REQUEST: Final = "/burn?ms=8"
CALLERS: Final = 12
CALLS_A_SECOND: Final = 3.0
"""Of one caller, at most."""
ANSWER_S: Final = 5.0
MIN, MAX, ON_A_NODE = 2, 8, 2
"""As examples/grow says."""
GROWN_S, SHRUNK_S = 120.0, 120.0
FIRST_S: Final = 3
"""So many seconds of load pass before anything can have grown."""
STEADY_S: Final = 8
"""So many seconds the grown service is watched under load."""


@dataclass(frozen=True, slots=True)
class Second:
    """One look. `at_s` since the first one; `offered` and `served`: requests per second; `failed`: calls without an answer."""

    at_s: float
    offered: float
    served: float
    failed: int
    wanted: int
    running: int
    nodes: int


class Counted(Protocol):
    """A load that may come and go."""

    served: int
    failed: int

    @property
    def offered(self) -> float: ...

    def begin(self) -> None: ...

    def end(self) -> None: ...


class Time(Protocol):
    """What of the module `time` is used."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


class Load:
    """Callers in threads; `served` and `failed` count what became of their calls."""

    def __init__(self, places: Sequence[str]) -> None:
        self._places = places
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.served = self.failed = 0

    @property
    def offered(self) -> float:
        """Requests per second that come if none has to wait."""
        return len(self._threads) * CALLS_A_SECOND

    def begin(self) -> None:
        self._threads = [threading.Thread(target=self._call_for_ever, args=(number,), daemon=True) for number in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _call_for_ever(self, number: int) -> None:
        place = self._places[number % len(self._places)]
        self._stop.wait(number / len(self._places) / CALLS_A_SECOND / CALLERS)
        while not self._stop.is_set():
            began = time.monotonic()
            good = _answers(place)
            with self._lock:
                self.served += good
                self.failed += not good
            self._stop.wait(max(0.0, began + 1 / CALLS_A_SECOND - time.monotonic()))


def _answers(place: str) -> bool:
    """One call over a connection of its own."""
    connection = http.client.HTTPConnection(place, PORT, timeout=ANSWER_S)
    try:
        connection.request("GET", REQUEST)
        response = connection.getresponse()
        response.read()
        return response.status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Watch:
    """`look` once a second; `rows` is what was seen. `top`: what `shoal top -o json` says; None: nothing."""

    def __init__(
        self, top: Callable[[], dict[str, Any] | None], load: Counted, say: Callable[[str], None], clock: Time = time
    ) -> None:
        self._top, self._load, self._say, self._clock = top, load, say, clock
        self._began = self._last_at = clock.monotonic()
        self._last_served = 0
        self.rows: list[Second] = []

    def look(self) -> Second:
        """Waits for the next second, and sees."""
        self._clock.sleep(max(0.0, self._last_at + 1.0 - self._clock.monotonic()))
        while (found := self._top()) is None:
            self._clock.sleep(0.2)
        row = self._row(found, self._load.served, self._clock.monotonic())
        before = self.rows[-1] if self.rows else None
        self.rows.append(row)
        if before is None or (before.running, before.nodes) != (row.running, row.nodes):
            at = f"{row.running} of {row.wanted} replicas on {row.nodes} nodes"
            self._say(f"{row.at_s:5.0f} s  {at} serve {row.served:.0f} requests/s")
        return row

    def _row(self, found: dict[str, Any], served: int, now: float) -> Second:
        service = next((row for row in found["services"] if row["name"] == SERVICE), {"wanted": 0, "running": 0})
        ready = sum(row["state"] == "ready" for row in found["nodes"])
        rate = (served - self._last_served) / (now - self._last_at)
        self._last_at, self._last_served = now, served
        return Second(
            round(now - self._began, 1), self._load.offered, round(rate, 1), self._load.failed, service["wanted"],
            service["running"], ready,
        )  # fmt: skip

    def until(self, seconds: float, reached: Callable[[Second], bool]) -> bool:
        """Looks until it is so; False when it is not after so long."""
        end = self._clock.monotonic() + seconds
        while not reached(self.look()):
            if self._clock.monotonic() > end:
                return False
        return True


@contextmanager
def coming(load: Counted) -> Iterator[None]:
    load.begin()
    try:
        yield
    finally:
        load.end()


def problem_of(watch: Watch, load: Counted, nodes: int) -> str:
    """Plays it: `nodes` are ready at first. Why it is not as it should be; empty: it is."""
    if not watch.until(60, lambda row: row.running == MIN):
        return f"{MIN} replicas of {SERVICE} do not run"
    watch.look()
    with coming(load):
        enough = max(nodes, -(-MAX // ON_A_NODE))
        grown = watch.until(GROWN_S, lambda row: row.running == row.wanted == MAX and row.nodes >= enough)
        top = watch.rows[-1]
        if not grown:
            return f"after {GROWN_S:.0f} s of load {top.running} of {MAX} replicas run, on {top.nodes} nodes, at first {nodes}"
        for _ in range(STEADY_S):
            watch.look()
    small = mean([row.served for row in watch.rows if row.offered][:FIRST_S])
    large = mean([row.served for row in watch.rows[-STEADY_S:]])
    if large < 1.3 * small:
        return f"{MAX} replicas serve {large:.0f} requests/s, and at first it were {small:.0f}"
    if not watch.until(SHRUNK_S, lambda row: row.running == row.wanted == MIN and row.nodes == nodes):
        row = watch.rows[-1]
        return f"{SHRUNK_S:.0f} s after the load there are still {row.running} replicas on {row.nodes} nodes"
    return ""


def read(text: str) -> list[Second]:
    """What `table` wrote."""
    found = csv.DictReader(text.splitlines())
    return [
        Second(
            float(row["at_s"]), float(row["offered"]), float(row["served"]), int(row["failed"]), int(row["wanted"]),
            int(row["running"]), int(row["nodes"]),
        )
        for row in found
    ]  # fmt: skip


def table(rows: Sequence[Second]) -> str:
    """CSV."""
    names = list(asdict(rows[0]))
    return "\n".join([",".join(names), *(",".join(str(asdict(row)[name]) for name in names) for row in rows), ""])
