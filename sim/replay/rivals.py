"""Autoscalers to compare with, from their documentation and source, with their defaults.

Rules: each sees what it would see: Kubernetes' and Nomad's CPU, which saturates at what replicas may use and comes late;
Knative's concurrency, which does not. All aim at the same share of a replica's capacity and are held to the same smallest and
largest count. They are models: delays of APIs and schedulers and gaps in metrics are left out, in their favour.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from math import ceil

_ALMOST = 1e-9


class Hpa:
    """Kubernetes' HorizontalPodAutoscaler on CPU utilization. `share`: the target, of `capacity`.

    Its documentation ("Horizontal Pod Autoscaling", kube-controller-manager's flags): sync period 15 s, tolerance 0.1,
    stabilization window 0 s up and 300 s down, up at most max(4 pods, 100 %) in 15 s, down at most 100 %. Its source
    (kubernetes/kubernetes pkg/controller/podautoscaler/replica_calculator.go): pods whose metric does not cover a whole window
    since they are ready are idle on the way up and left out on the way down; a result that turns round means no change. The
    figure comes late: kubelet reads cgroups every 10 s (`--housekeeping-interval`), the metrics server asks every 15 s
    (`--metric-resolution`) and gives the average between its last two answers.
    """

    name = "hpa"
    every_s = 15
    READ_S, READ_PHASE_S, SCRAPE_S, SCRAPE_PHASE_S, DOWN_S, TOLERANCE = 10, 4, 15, 7, 300, 0.1

    def __init__(self, share: float, capacity: float, least: int, most: int) -> None:
        self.share, self.capacity, self.least, self.most = share, capacity, least, most
        self.usage, self.known = share, 0
        self._second = self._read_s = self._scraped_s = 0
        self._seconds: deque[tuple[int, float, int]] = deque(maxlen=2 * self.SCRAPE_S + self.READ_S)
        self._wanted: deque[tuple[int, int]] = deque()

    def sense(self, demand: float, served: float, ready: int, starting: int) -> None:
        self._second += 1
        self._seconds.append((self._second, served / (ready * self.capacity) if ready else 0.0, ready))
        if self._second % self.READ_S == self.READ_PHASE_S:
            self._read_s = self._second
        if self._second % self.SCRAPE_S == self.SCRAPE_PHASE_S and self._read_s > self._scraped_s:
            rows = [row for row in self._seconds if self._scraped_s < row[0] <= self._read_s]
            self.usage, self.known = sum(row[1] for row in rows) / len(rows), min(row[2] for row in rows)
            self._scraped_s = self._read_s

    def decide(self, now_s: int, scale: int, ready: int) -> int:
        wanted = self._desired(scale, min(self.known, ready))
        while self._wanted and self._wanted[-1][1] <= wanted:
            self._wanted.pop()
        self._wanted.append((now_s, wanted))
        while self._wanted[0][0] <= now_s - self.DOWN_S:
            self._wanted.popleft()
        goal = wanted if wanted > scale else min(scale, self._wanted[0][1])
        return max(self.least, min(goal, scale + max(4, scale), self.most))

    def _desired(self, scale: int, known: int) -> int:
        """`known`: pods with a metric; the others are idle when there are too few, and not there when there are too many."""
        if not known:
            return scale
        ratio, counted = self.usage / self.share, known
        if ratio > 1 and known < scale:
            ratio, counted = ratio * known / scale, scale
            if ratio < 1:
                return scale
        return scale if abs(ratio - 1) <= self.TOLERANCE else ceil(ratio * counted - _ALMOST)


class Kpa:
    """Knative's pod autoscaler on concurrency.

    Its documentation ("Additional autoscaling configuration for Knative Pod Autoscaler") and source (knative/serving
    pkg/autoscaler/scaling/autoscaler.go): stable window 60 s, panic window 10 % of it, panic at twice what is ready, left when
    a stable window has passed without, tick 2 s, up at most 1000-fold, down at most by half in a tick. Concurrency is
    proportional to the demand. `target`: units a second of a replica at its target utilization.
    """

    name = "kpa"
    every_s = 2
    STABLE_S, PANIC_S, PANIC_AT, UP_RATE, DOWN_RATE = 60, 6, 2.0, 1000, 2

    def __init__(self, target: float, least: int, most: int) -> None:
        self.target, self.least, self.most = target, least, most
        self._seen: deque[float] = deque(maxlen=self.STABLE_S + 1)
        self._panic_s: int | None = None
        self._panic_most = 0

    def sense(self, demand: float, served: float, ready: int, starting: int) -> None:
        self._seen.append(demand)

    def decide(self, now_s: int, scale: int, ready: int) -> int:
        """The newest second is not seen yet."""
        known = max(1, len(self._seen) - 1)
        stable = sum(islice(self._seen, known)) / known
        first = max(0, known - self.PANIC_S)
        panic = sum(islice(self._seen, first, known)) / (known - first)
        serving = max(1, ready)
        raw = ceil(panic / self.target - _ALMOST)
        calm, panicked = self._limited(ceil(stable / self.target - _ALMOST), serving), self._limited(raw, serving)
        if raw / serving >= self.PANIC_AT:
            if self._panic_s is None:
                self._panic_most = 0
            self._panic_s = now_s
        elif self._panic_s is not None and now_s - self._panic_s > self.STABLE_S:
            self._panic_s = None
        goal = calm
        if self._panic_s is not None:
            goal = self._panic_most = max(self._panic_most, calm, panicked)
        return max(self.least, min(goal, self.most))

    def _limited(self, wanted: int, serving: int) -> int:
        return min(max(wanted, serving // self.DOWN_RATE), ceil(serving * self.UP_RATE))


class Nomad:
    """Nomad's autoscaler with the target-value strategy on the average CPU of the allocations.

    Its documentation ("Autoscaling": agent and policy) and source (hashicorp/nomad-autoscaler
    plugins/builtin/strategy/target-value): evaluation every 10 s, one cooldown of 5 min after any action, query window 1 min,
    threshold 0.01, no limit of a step.
    """

    name = "nomad"
    every_s = 10
    WINDOW_S, COOLDOWN_S, THRESHOLD = 60, 300, 0.01

    def __init__(self, share: float, capacity: float, least: int, most: int) -> None:
        self.share, self.capacity, self.least, self.most = share, capacity, least, most
        self._usage: deque[float] = deque(maxlen=self.WINDOW_S)
        self._free_s = 0

    def sense(self, demand: float, served: float, ready: int, starting: int) -> None:
        self._usage.append(served / (ready * self.capacity) if ready else 0.0)

    def decide(self, now_s: int, scale: int, ready: int) -> int:
        factor = sum(self._usage) / len(self._usage) / self.share
        if now_s < self._free_s or abs(factor - 1) <= self.THRESHOLD:
            return scale
        goal = max(self.least, min(ceil(scale * factor - _ALMOST), self.most))
        if goal != scale:
            self._free_s = now_s + self.COOLDOWN_S
        return goal
