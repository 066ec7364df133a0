"""The autoscaler's rule beside others, over made loads and those of files: `python -m bench.autoscale [TRACE...] [--json]`.

Rules: a made load is a day by the second; twenty replicas on average, which start in 5 s (sim/replay). The last lines are ours
by theirs: of the usual kinds taken together, for which it is promised (tests/unit/test_replay_aims.py), and of all made ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from bench import figures
from sim.replay.compare import SHARE, Case, Compared, compare, promised, totals
from sim.replay.loads import Load, busiest, load_of, read_load
from sim.replay.made import KINDS, USUAL
from sim.replay.policies import default

REPLICAS = 20
HOURS_MAX = 7 * 24.0


def compared(load: Load, start_s: int = 5) -> Compared:
    """All policies with their defaults, REPLICAS replicas on average."""
    target = load.mean / REPLICAS
    return compare(load, Case(default(target), target, target / SHARE, start_s))


def told(name: str, found: Sequence[Compared]) -> None:
    for policy, row in totals(found).items():
        print(
            f"{name:28} {policy:6} {row['unserved_percent']:8.3f} % {row['cost']:7.3f} "
            f"{row['actions_per_day']:8,.0f} {row['reversals_per_day']:8,.0f}"
        )
        for key, unit in (("unserved_percent", "%"), ("cost", "x oracle"), ("reversals_per_day", "a day")):
            figures.add(f"{name}, {policy}: {key.removesuffix('_percent').removesuffix('_per_day')}", row[key], unit)
    writes = sum(one.writes_per_day for one in found) / len(found)
    figures.add(f"{name}: documents written", writes, "a day")


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m bench.autoscale")
    words.add_argument("traces", nargs="*", type=Path, metavar="TRACE", help="CSV, as `shoal autoscale replay` takes it")
    words.add_argument("--seeds", type=int, default=2)
    options = words.parse_args()
    print(f"{'load':28} {'policy':6} {'unserved':>10} {'cost':>7} {'actions/d':>8} {'rev./d':>7}")
    began, days, usual, made = time.process_time(), 0.0, list[Compared](), list[Compared]()
    for kind in KINDS:
        found = [compared(load_of(f"made:{kind}/{seed}")) for seed in range(1, options.seeds + 1)]
        days += sum(len(one.load.demand) * len(one.runs) / 86_400 for one in found)
        told(kind, found)
        made += found
        usual += found if kind in USUAL else []
    figures.add("a day under one policy, cpu", (time.process_time() - began) / days, "s")
    for path in options.traces:
        told(path.name.partition(".")[0], [compared(busiest(read_load(path), HOURS_MAX))])
    for which, some in (("usual loads", usual), ("all made loads", made)):
        for name, value in promised(some).items():
            print(f"{which}: {name}: {value:.3f}")
            figures.add(f"{which}: {name}", value)


if __name__ == "__main__":
    figures.run(main)
