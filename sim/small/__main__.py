"""`python -m sim.small [--faults 2]`: every order of the small model; minutes with two faults, seconds with one."""

from __future__ import annotations

import argparse
import sys
import time

from sim.small import Small, explore


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m sim.small")
    words.add_argument("--faults", type=int, default=2)
    options = words.parse_args()
    began_s = time.process_time()
    found = explore(Small(options.faults))
    size = f"{found.states:,} states, {found.steps:,} steps, {found.rests:,} at rest"
    print(f"small model, {options.faults} faults: {size}, {time.process_time() - began_s:.0f} s of CPU")
    if found.violation:
        print(f"broken: {found.violation}", *found.path, sep="\n  ")
    return 1 if found.violation else 0


if __name__ == "__main__":
    sys.exit(main())
