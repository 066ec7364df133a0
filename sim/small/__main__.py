"""`python -m sim.small [--faults 2]`: every order of the small model; half a minute with two faults, a second with one."""

from __future__ import annotations

import argparse
import resource
import sys
import time

from sim.small import Small, explore


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m sim.small")
    words.add_argument("--faults", type=int, default=2)
    words.add_argument("--states-max", type=int, default=20_000_000)
    options = words.parse_args()
    began_s = time.process_time()
    found = explore(Small(options.faults), options.states_max)
    size = f"{found.states:,} states, {found.steps:,} steps, {found.rests:,} at rest, at most {found.depth} steps away"
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    cost = f"{time.process_time() - began_s:.0f} s of CPU, {memory_mb:,} MB"
    print(f"small model, {options.faults} faults: {size}; {cost}")
    if found.violation:
        print(f"broken: {found.violation}", *found.path, sep="\n  ")
    return 1 if found.violation else 0


if __name__ == "__main__":
    sys.exit(main())
