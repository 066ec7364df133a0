"""The demo: a cluster on this machine, a stack on it, scaled, hurt and healed, and everything taken away again.

    python -m deploy.demo [--nodes 3] [--only hurt|grow] [--record FILE]

Rules: it uses the command line as a person would, and only that, with a configuration folder of its own, so that the contexts
of whoever runs it stay as they are. Its lab is named after the checkout: what a killed run left is found and taken down
by the next one. It ends with exit code 1 when something that it says does not happen.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from deploy import demo_grow

ROOT = Path(__file__).resolve().parents[1]
STACK = ROOT / "deploy" / "examples" / "demo" / "compose.yaml"
SERVICE = "demo_web"
NODE_TIMEOUT_S = 3.0
# The newest heartbeat may be a sixth of the timeout old when the power goes. Whoever moves replicas before that has not waited
# for silence: the figure would look good, and a mere restart of an agent would move its replicas too.
LOST_S_MIN = NODE_TIMEOUT_S * 5 / 6 - 0.2
Replica = dict[str, Any]

# Runs inside a replica: asks every address given and prints one line per answer.
ASK = (
    "import sys, urllib.request as u\n"
    "for a in sys.argv[1:]: print(u.urlopen('http://' + a + ':8080/', timeout=10).read().decode().strip())"
)


class DemoError(Exception):
    """What was promised and did not happen, in one line."""


class Shoal:
    """The command line, called as a program."""

    def __init__(self, lab: str, config: Path) -> None:
        self.lab = lab
        self._environment = {**os.environ, "SHOAL_CONFIG_DIR": str(config), "SHOAL_CONTEXT": lab}

    def run(self, *words: str, check: bool = True) -> str:
        """Output of `shoal WORDS`; DemoError with its last line when it fails."""
        command = [sys.executable, "-m", "shoal", *words]
        done = subprocess.run(command, cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            raise DemoError(f"`shoal {' '.join(words)}` ended with {done.returncode}: {said[-1]}")
        return done.stdout

    def rows(self, *words: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.run(*words, "-o", "json"))
        return rows

    def running(self) -> list[Replica]:
        return [row for row in self.rows("ps") if row["state"] == "running" and row["desired"] == "running"]


def say(text: str) -> None:
    print(text, flush=True)


def step(title: str) -> None:
    say(f"\n== {title}")


def wait(what: str, seconds: float, found: Callable[[], Any]) -> Any:
    """The first true answer of `found`; DemoError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise DemoError(f"waited {seconds:.0f} s in vain for: {what}")
        time.sleep(0.05)
    return answer


def exactly(shoal: Shoal, count: int, nodes: set[str]) -> list[Replica]:
    """The running replicas once there are `count` of them, and they stand on all of `nodes`."""

    def found() -> list[Replica]:
        rows = shoal.running()
        return rows if len(rows) == count and {row["node"] for row in rows} == nodes else []

    rows: list[Replica] = wait(f"{count} replicas running on {', '.join(sorted(nodes))}", 90, found)
    return rows


def spread(rows: list[Replica]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["node"]] = counts.get(row["node"], 0) + 1
    return ", ".join(f"{counts[node]} on {node}" for node in sorted(counts))


def ask_across_nodes(shoal: Shoal, rows: list[Replica]) -> None:
    """From one replica on each node, ask all replicas on all nodes; each must answer with its own name."""
    names = [row["name"] for row in rows]
    addresses = [row["addresses"][0].split("/")[0] for row in rows]
    asking = {row["node"]: row["name"] for row in rows}
    for node, name in sorted(asking.items()):
        answers = shoal.run("exec", name, "python3", "-c", ASK, *addresses).splitlines()
        wrong = [want for want, got in zip(names, answers, strict=False) if got.split()[:1] != [want]]
        if wrong or len(answers) != len(names):
            raise DemoError(f"{name} on {node} asked {len(names)} replicas and had no right answer from {', '.join(wrong[:3])}")
        say(f"{name} on {node} asked all {len(answers)}: each answered with its own name, for example: {answers[-1]}")


def pid_of(shoal: Shoal, name: str) -> int:
    """The process id of a replica's container, as its node sees it."""
    (found,) = json.loads(shoal.run("inspect", "--type", "replica", name))
    return int(found["container"]["State"]["Pid"])


def kill_a_container(shoal: Shoal, victim: Replica) -> None:
    pid = pid_of(shoal, victim["name"])
    begin = time.monotonic()
    shoal.run("lab", "exec", "--name", shoal.lab, victim["node"], "--", "kill", "-KILL", str(pid))

    def back() -> bool:
        rows = [row for row in shoal.running() if row["name"] == victim["name"]]
        return bool(rows) and rows[0]["container_id"] != victim["container_id"]

    wait(f"{victim['name']} running again", 30, back)
    say(f"{victim['name']} was killed on {victim['node']} and runs again after {time.monotonic() - begin:.1f} s")


def kill_a_node(shoal: Shoal, victim: str, count: int, nodes: set[str]) -> None:
    moved = [row["name"] for row in shoal.running() if row["node"] == victim]
    begin = time.monotonic()
    shoal.run("lab", "kill", victim, "--name", shoal.lab)
    rows = exactly(shoal, count, nodes - {victim})
    took = time.monotonic() - begin
    if took < LOST_S_MIN:
        raise DemoError(f"{victim} was given up after {took:.1f} s, before its node timeout of {NODE_TIMEOUT_S:.0f} s was over")
    say(f"{victim} is gone; its {len(moved)} replicas run elsewhere after {took:.1f} s: {spread(rows)}")


def traces(lab: str) -> list[str]:
    """What is left of a lab on this machine, one line a thing."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = [f"mount {mount}" for mount in mounts if f"/labs/{lab}" in mount]
    for base in ("/var/lib/shoal/labs", "/run/shoal/labs"):
        found += [f"file {path}" for path in Path(base).glob(f"{lab}*")]
    found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"**/shoal-labs/{lab}")]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"/{lab}/" in (entry / "cmdline").read_text() and int(entry.name) != os.getpid():
                found.append(f"process {entry.name}")
        except OSError:
            continue  # it ended while we looked
    tag = hashlib.sha256(lab.encode()).hexdigest()[:6]
    return found + [f"link {path.name}" for path in Path("/sys/class/net").glob(f"shl-{tag}*")]


def start(shoal: Shoal, nodes: int) -> set[str]:
    """A cluster of so many nodes; their names."""
    step(f"a cluster of {nodes} nodes: shoal lab up --nodes {nodes}")
    begin = time.monotonic()
    shoal.run("lab", "up", "--nodes", str(nodes), "--name", shoal.lab, "--node-timeout", str(NODE_TIMEOUT_S))
    say(f"up after {time.monotonic() - begin:.1f} s\n{shoal.run('node', 'ls').rstrip()}")
    names = {row["name"] for row in shoal.rows("node", "ls") if row["state"] == "ready"}
    if len(names) != nodes:
        raise DemoError(f"{len(names)} of {nodes} nodes are ready")
    return names


def hurt(shoal: Shoal, names: set[str]) -> set[str]:
    """A stack is scaled, hurt and healed; the nodes that are left."""
    step(f"a stack of real containers: shoal apply -f {STACK.relative_to(ROOT)}")
    begin = time.monotonic()
    shoal.run("apply", "-f", str(STACK))
    rows = exactly(shoal, 30, names)
    say(f"30 replicas run after {time.monotonic() - begin:.1f} s: {spread(rows)}")
    ask_across_nodes(shoal, rows)

    for count in (60, 10):
        step(f"scale: shoal service scale {SERVICE}={count}")
        begin = time.monotonic()
        shoal.run("service", "scale", f"{SERVICE}={count}")
        rows = exactly(shoal, count, names)
        say(f"{count} replicas run after {time.monotonic() - begin:.1f} s: {spread(rows)}")

    step("a container is killed")
    kill_a_container(shoal, rows[0])
    victim = max(names)
    step(f"a node loses its power: shoal lab kill {victim}")
    kill_a_node(shoal, victim, 10, names)
    say(shoal.run("explain", SERVICE).rstrip())
    shoal.run("node", "rm", "--force", victim)
    shoal.run("stack", "rm", "demo")
    return names - {victim}


def grow(shoal: Shoal, names: set[str], record: Path | None) -> None:
    """A load comes and goes."""
    example = demo_grow.EXAMPLE.relative_to(ROOT)
    step(f"machines on demand, a service that follows its load: shoal nodegroup apply, shoal apply -f {example}/compose.yaml")
    shoal.run("nodegroup", "apply", "-f", str(demo_grow.EXAMPLE / "machines.yaml"))
    shoal.run("apply", "-f", str(demo_grow.EXAMPLE / "compose.yaml"))
    machines = json.loads(shoal.run("lab", "status", "--name", shoal.lab, "-o", "json"))["nodes"]
    load = demo_grow.Load([row["address"] for row in machines if row["name"] in names])
    say(f"{demo_grow.CALLERS} callers come, of up to {demo_grow.CALLS_A_SECOND:g} requests/s each, and go again")
    watch = demo_grow.Watch(lambda: top(shoal), load, say)
    problem = demo_grow.problem_of(watch, load, len(names))
    if record is not None:
        record.write_text(demo_grow.table(watch.rows))
    if problem:
        raise DemoError(problem)
    say(f"{load.served} requests were served, {load.failed} had no answer")
    say(shoal.run("autoscale", "history", demo_grow.SERVICE).rstrip())
    say(shoal.run("nodegroup", "explain", "more").rstrip())


def top(shoal: Shoal) -> dict[str, Any] | None:
    """None in a moment without a leader."""
    try:
        found: dict[str, Any] = json.loads(shoal.run("top", "--once", "-o", "json"))
    except DemoError:
        return None
    return found


def lab_name() -> str:
    return "demo-" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:4]


def main() -> int:
    words = argparse.ArgumentParser(description="A cluster on this machine: scaled, hurt, healed and taken away.")
    words.add_argument("--nodes", type=int, default=3)
    words.add_argument("--only", choices=("hurt", "grow"), default="", help="one half of it")
    words.add_argument("--record", type=Path, help="what was seen while it grew, as CSV")
    options = words.parse_args()
    if os.geteuid() != 0:
        say("demo: needs root (network namespaces, mounts, cgroups): run it as root")
        return 1
    signal.signal(signal.SIGTERM, stop)
    with tempfile.TemporaryDirectory(prefix="shoal-demo-") as config, (ROOT / ".venv" / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second demo of this checkout waits for the first
        return perform(Shoal(lab_name(), Path(config)), options)


def perform(shoal: Shoal, options: argparse.Namespace) -> int:
    """Run it, and take the lab down whatever happens; returns the exit code."""
    failed = False
    shoal.run("lab", "down", "--name", shoal.lab, check=False)  # what a killed run may have left
    try:
        names = start(shoal, options.nodes)
        if options.only != "grow":
            names = hurt(shoal, names)
        if options.only != "hurt":
            grow(shoal, names, options.record)
    except (DemoError, KeyboardInterrupt) as error:
        failed = True
        say(f"demo: {str(error) or 'interrupted'}")
    finally:
        step("the end: shoal lab down")
        shoal.run("lab", "down", "--name", shoal.lab)
    left = traces(shoal.lab)
    say(f"left on this machine: {', '.join(left) or 'nothing'}")
    return 1 if failed or left else 0


def stop(number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt(f"stopped by {signal.Signals(number).name}")


if __name__ == "__main__":
    sys.exit(main())
