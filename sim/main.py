"""`python -m shoal sim`: simulates a cluster from a seed; prints what was violated, and the smallest faults that still do it.

Rules: exit code 0: nothing was violated; 1: something was; 2: wrong flags. With --json one object, also of several runs.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from sim.faults import Fault
from sim.run import Result, shrink, simulate
from sim.scenario import Scenario
from sim.shrink import TRIES

STORY_LINES = 40


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the seeds one after the other; ends with the first that fails."""
    flags = _parser().parse_args(sys.argv[1:] if argv is None else list(argv))
    logging.basicConfig(level=flags.log_level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    results: list[Result] = []
    for seed in range(flags.seed, flags.seed + flags.runs):
        scenario = Scenario(
            seed, flags.nodes, flags.minutes, flags.faults, flags.controllers, quiet_s=flags.quiet, whole=flags.whole
        )
        result = simulate(scenario)
        results.append(result)
        if not flags.json:
            print(summary(result))
        if result.violations:
            _explain(scenario, result, flags)
            break
    if flags.json:
        print(json.dumps(totals(results)))
    return 1 if any(result.violations for result in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shoal sim", description="Simulate a whole cluster from a seed.")
    parser.add_argument("--seed", type=int, default=1, help="what everything by chance comes from (%(default)s)")
    parser.add_argument("--runs", type=int, default=1, help="so many seeds, from --seed on (%(default)s)")
    parser.add_argument("--nodes", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--controllers", type=int, default=3, help="(%(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=10.0,
        help="virtual minutes, with the quiet end, which is over as soon as all is well: see --whole (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--whole", action="store_true", help="go on to the last minute: all must still be well then")
    parser.add_argument("--faults", type=int, default=100, help="(%(default)s)")
    parser.add_argument("--quiet", type=float, default=0.0, help="seconds within which all must be well after the last fault")
    parser.add_argument("--tries", type=int, default=TRIES, help="most runs to find the smallest faults (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--log-level", default="critical", help="of the daemons inside (%(default)s)")
    return parser


def summary(result: Result) -> str:
    """One line."""
    return (
        f"seed {result.seed}: {len(result.violations)} violations, {result.faults} faults, {result.virtual_s / 60:.1f} virtual "
        f"minutes, {result.steps} steps, {result.cpu_s:.2f} s of CPU, trace {result.trace_sha256[:16]}"
    )


def totals(results: Sequence[Result]) -> dict[str, Any]:
    """Of one run what it found; of several the sums, and the digest of their digests."""
    digests = [result.trace_sha256 for result in results]
    return {
        "seed": results[0].seed,
        "runs": len(results),
        "violations": [{"seed": row.seed, **asdict(one)} for row in results for one in row.violations],
        "faults": sum(result.faults for result in results),
        "trace_sha256": digests[0] if len(digests) == 1 else sha256("\n".join(digests).encode()).hexdigest(),
        "cpu_s": round(sum(result.cpu_s for result in results), 3),
        "virtual_s": round(sum(result.virtual_s for result in results), 3),
        "steps": sum(result.steps for result in results),
    }


def _explain(scenario: Scenario, result: Result, flags: argparse.Namespace) -> None:
    """The seed, the smallest faults and the story, to stderr: stdout is for the JSON."""
    lines = [f"seed {result.seed} fails:", *(f"  {violation}" for violation in result.violations[:10])]
    print("\n".join(lines), file=sys.stderr)
    faults: tuple[Fault, ...] = shrink(scenario, result, flags.tries) if flags.tries else ()
    if flags.tries:
        print(f"the smallest faults that still do it ({len(faults)}):", file=sys.stderr)
        print("\n".join(f"  {fault}" for fault in faults) or "  none: it fails without any", file=sys.stderr)
    print(f"the story of {result.violations[0].about}:", file=sys.stderr)
    print("\n".join(f"  {line}" for line in result.story[-STORY_LINES:]), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
