"""`python -m bench.table [--rounds 3] [--out docs/benchmarks.md] [NAME...]`: all figures as one page. Root for most of them.

Rules: every bench runs as a process of its own, one after the other, and so again for each round: what drifts on the machine
meanwhile falls on all of them. Medians are written, with the smallest and the greatest. A bench that fails is named.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

BENCHES: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    "start": ("From `apply` to all running, in a lab of five nodes", ("--rounds", "1")),
    "runtime": ("One container's start and end", ()),
    "network": ("What the network costs, in a lab of two nodes", ("--rounds", "1")),
    "balance": ("The load balancer of one node", ("--rounds", "10")),
    "images_cluster": ("Twenty nodes of a lab that pull one image", ()),
    "names": ("The name server of one node", ("--rounds", "1")),
    "sampling": ("What measuring costs, on a node of 200 containers and in the controller", ()),
    "scheduler": ("The scheduler at scale, CPU seconds", ()),
    "decide": ("One decision beside 10,000 services of 10 replicas on 1,000 nodes, CPU time", ()),
    "autoscale": ("The autoscaler's rule beside models of others, on made loads", ("--seeds", "1")),
    "control_plane": (
        "The control plane: a real etcd, 1,000 agents' streams, 200,000 replicas", ("--nodes", "1000", "--replicas", "200000"),
    ),
    "control_plane_5000": (
        "The same with 5,000 agents' streams and 1,000,000 replicas", ("--nodes", "5000", "--replicas", "1000000"),
    ),
    "images": ("Images of 50 and 500 MB, pulled, unpacked and pushed, beside skopeo and tar", ("--rounds", "1")),
    "store": ("The store", ()),
}
MODULES: Final = {"control_plane_5000": "control_plane"}
"""Of those that are not named as their module."""
LIMIT_S: Final = 1_800


def measured(name: str) -> dict[str, float] | str:
    """A bench's figures, or why there are none."""
    command = [sys.executable, "-m", module(name), *BENCHES[name][1], "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"not done in {LIMIT_S} s"
    if done.returncode:
        return (done.stderr.strip() or "no word").splitlines()[-1][:200]
    found = json.loads(done.stdout.splitlines()[-1])
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}


def module(name: str) -> str:
    """Who measures it."""
    return f"bench.{MODULES.get(name, name)}"


def section(name: str, rounds: Sequence[dict[str, float] | str]) -> list[str]:
    good = [row for row in rounds if not isinstance(row, str)]
    title, arguments = BENCHES[name]
    command = " ".join(("python -m", module(name), *arguments))
    lines = [f"## {title}", "", f"`{command}`, {len(good)} of {len(rounds)} rounds.", ""]
    lines += [f"Failed: {row}\n" for row in rounds if isinstance(row, str)]
    if good:
        lines += ["| | median | smallest | greatest |", "|---|--:|--:|--:|"]
        for key in good[0]:
            values = [row[key] for row in good if key in row]
            lines.append(f"| {key} | {short(median(values))} | {short(min(values))} | {short(max(values))} |")
    return [*lines, ""]


def short(value: float) -> str:
    """Three digits that count, or all of a whole number."""
    if value == round(value) and abs(value) >= 1:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def machine() -> str:
    """What it was measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    built = "" if "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS")) else " built without optimisations"
    kernel, python = platform.release(), platform.python_version() + built
    return f"{os.cpu_count()} cores ({model}), {memory_gib:.0f} GiB, Linux {kernel}, Python {python}"


def page(names: Iterable[str], found: Mapping[str, Sequence[dict[str, float] | str]], load: float) -> str:
    head = [
        "# Benchmarks", "",
        "Written by `make bench`: every bench in turn, and all of them again in each round; medians, smallest, greatest.", "",
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {machine()}; the load was {load:.1f} when it began.", "",
        "`cpu` and `seconds` without another word are seconds. What the figures mean stands at the head of each bench.", "",
    ]  # fmt: skip
    return "\n".join([*head, *(line for name in names for line in section(name, found[name]))]).rstrip() + "\n"


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m bench.table")
    words.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all when none is named")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--out", type=Path, help="where the page is written; else it is printed")
    options = words.parse_args()
    names = options.names or list(BENCHES)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        words.error(f"no bench {', '.join(unknown)}: choose of {', '.join(BENCHES)}")
    load, found = os.getloadavg()[0], {name: list[dict[str, float] | str]() for name in names}
    for turn in range(options.rounds):
        for name in names:
            print(f"round {turn + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
            found[name].append(measured(name))
        if options.out:  # after each round: an hour's figures must not hang on its end
            options.out.write_text(page(names, found, load))
    if not options.out:
        print(page(names, found, load), end="")
    return 1 if any(isinstance(row, str) for rows in found.values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
