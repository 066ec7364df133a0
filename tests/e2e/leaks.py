"""Counts what a lab could leave on the machine: namespaces, links, mounts, cgroups, rules, files, processes.

Rules: only what carries the lab's name, tag or cgroup is counted, so that other labs and programs do not disturb.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lab import cgroups, layout
from tests.e2e import leaks_network
from tests.e2e.harness import LabUnderTest, eventually


def on_host(name: str) -> list[str]:
    """Everything of the lab that the machine still holds; empty after `lab down`."""
    found = [f"process {pid}" for pid in cgroups.processes(f"{layout.CGROUP_ROOT}/{name}")]
    for root in cgroups.hierarchies():
        found += [f"cgroup {path}" for path in (root / layout.CGROUP_ROOT).glob(f"{name}*")]
    found += [
        f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{name}/" in line
    ]
    found += [f"link {link}" for link in os.listdir("/sys/class/net") if layout.tag(name) in link]
    found += leaks_network.on_host()
    for base in (layout.STATE_ROOT, layout.RUN_ROOT):
        found += [f"file {path}" for path in base.glob(f"{name}*")]
    return found + _processes_naming(name)


def _processes_naming(name: str) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if f"/labs/{name}/".encode() in words and int(entry.name) != os.getpid():
            found.append(f"process {entry.name}: {words[:80]!r}")
    return found


def left_on(lab: LabUnderTest, node: str) -> list[str]:
    """What the node still has when it has had its time; empty as soon as it has nothing."""
    left: list[str] = []

    def nothing() -> bool:
        left[:] = on_node(lab, node)
        return not left

    with contextlib.suppress(AssertionError):
        eventually(nothing, "an empty node", 40)
    return left


def on_node(lab: LabUnderTest, node: str) -> list[str]:
    """Everything of containers that a node still holds; empty when nothing is assigned to it.

    The node's own bridge (`shb-0`, as `docker0` elsewhere) stays once it was needed.
    """
    state, run = layout.LabPaths(lab.name).machine_state(node), layout.LabPaths(lab.name).machine_run(node)
    found = leaks_network.in_kernel(lab, node) + leaks_network.files(run)
    found += [f"mount {line.split()[4]}" for line in lab.on(node, "cat", "/proc/self/mountinfo").splitlines()
              if " overlay " in line or "/netns/" in line]  # fmt: skip
    found += [f"namespace {path.name}" for path in (run / "netns").glob("*")]
    found += [f"container {path.name}" for path in (state / "containers").glob("*")]
    found += [f"journal {path.name}" for path in (state / "replicas").glob("*")]
    for root in cgroups.hierarchies():
        below = root / layout.CGROUP_ROOT / lab.name / node / "replicas"
        found += [f"cgroup {path}" for path in below.glob("*") if path.is_dir()]
    found += [f"process {pid}" for pid in cgroups.processes(f"{layout.CGROUP_ROOT}/{lab.name}/{node}/replicas")]
    words = lab.on(node, "ps", "-eo", "comm").split()
    found += [f"process {word}" for word in words if word in ("conmon", "crun", "runc")]
    return found
