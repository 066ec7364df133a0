"""Many nodes pull one image at once: `python -m bench.images_cluster [--nodes 20] [--mb 48] [--mbit 100] [--rounds 1]`. Root.

Measured on a lab of its own, in turn: `shoal pull` to all nodes, where they fetch from each other, and as many direct pulls at
once, each from its node's network by the same code without peers. Counted at the registry's port: what it sent, as copies of
the image; HTTP and TCP included, so one copy is a little over 1. Once with the registry's link held to `--mbit`, as of one that
others use too, and once without a limit: then this machine's cores unpack everything, and are what is measured.

Rules: the image is new in each round and does not compress; what a round pulled is removed before the next one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.images.calls import Calls
from agent.images.records import RegistryConfig, host_image_platform
from agent.images.trees import remove_tree
from bench import figures
from deploy.images.debs import FileEntry
from deploy.images.layout import make_layer, write_layout
from lab.cluster import Lab
from lab.layout import REGISTRY, REGISTRY_HOST, port_name
from lab.push import push_layout

PARTS: Final = (0.5, 0.25, 0.15, 0.1)
"""Of the image's size, a layer each."""
NODE_TIMEOUT_S: Final = 60.0


def image(folder: Path, size_bytes: int, name: str) -> int:
    """An OCI layout of random files; the bytes that a pull of it reads."""
    layers = []
    for number, part in enumerate(PARTS):
        files = [FileEntry(f"data/{number}-{each}", "file", 0o644, os.urandom(int(size_bytes * part / 8))) for each in range(8)]
        layers.append(make_layer(files, f"part {number}"))
    write_layout(folder, name, layers, {"Cmd": ["/bin/true"]}, host_image_platform().partition("/")[2])
    return sum(len(layer.data) for layer in layers)


def sent_bytes(lab: Lab) -> int:
    """What has left the registry."""
    return int(Path(f"/sys/class/net/{port_name(lab.name, REGISTRY_HOST)}/statistics/rx_bytes").read_text())


def limit(lab: Lab, mbit: int) -> None:
    """Hold the registry's link to so much; 0: no longer."""
    rule = ["tbf", "rate", f"{mbit}mbit", "burst", "256kb", "latency", "100ms"]
    what = ["replace", "dev", "eth0", "root", *rule] if mbit else ["del", "dev", "eth0", "root"]
    subprocess.run(["nsenter", f"--net={lab.paths.netns(REGISTRY)}", "tc", "qdisc", *what], check=True)


def together(lab: Lab, name: str) -> None:
    """`shoal pull` to all nodes."""
    with lab.client() as client:
        rows = list(client.lines("/v1/images/pull", method="POST", body={"reference": name}))
    failed = [row["error"] for row in rows if row.get("error")]
    got = sum(1 for row in rows if row.get("image"))
    assert not failed, failed[0]
    assert got == len(lab.record().nodes()), f"{got} nodes have it"


def forget(lab: Lab, name: str) -> None:
    with lab.client() as client:
        client.delete(f"/v1/images/{name}", force=True)


def direct(lab: Lab, name: str) -> float:
    """Every node by itself; seconds from the word to begin until the last has it."""
    folder = Path(tempfile.mkdtemp(prefix="shoal-bench-"))
    registry = lab.record().registry
    pulls = [
        subprocess.Popen(
            ["nsenter", f"--net={lab.paths.netns(node.name)}", sys.executable, "-m", "bench.images_cluster", "--one",
             str(folder / node.name), registry, name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for node in lab.record().nodes()
    ]  # fmt: skip
    try:
        for pull in pulls:
            assert pull.stdout is not None
            assert pull.stdout.readline() == "ready\n"
        began = time.monotonic()
        for pull in pulls:
            assert pull.stdin is not None
            pull.stdin.write("go\n")
            pull.stdin.flush()
        for pull in pulls:
            assert pull.stdout is not None
            assert pull.stdout.readline() == "done\n", "a direct pull failed"
        took = time.monotonic() - began
        for pull in pulls:
            pull.wait(1_200)
        return took
    finally:
        for pull in pulls:
            pull.kill()
            pull.communicate()
        remove_tree(folder)


async def one(folder: Path, registry: str, name: str) -> None:
    """One direct pull, when it is told to begin."""
    from agent.images.store import ImageStore

    config = RegistryConfig(mirrors={"docker.io": (registry,)}, insecure=frozenset({registry}))
    folder.mkdir(parents=True)
    store = ImageStore(folder, config=config)
    print("ready", flush=True)
    sys.stdin.readline()
    await store.pull(name)
    print("done", flush=True)
    await store.close()


def measure(lab: Lab, size_bytes: int, way: Callable[[Lab, str], object]) -> tuple[float, float]:
    """Seconds and copies, of an image that nobody has."""
    name = f"bench/cluster:{secrets.token_hex(4)}"
    layout = Path(tempfile.mkdtemp(prefix="shoal-bench-image-"))
    calls = Calls(RegistryConfig(insecure=frozenset({lab.record().registry})))
    try:
        total = image(layout / "image", size_bytes, name)
        push_layout(calls, lab.record().registry, layout / "image", name)
        os.sync()  # what the last round wrote is not this one's burden
        before, began = sent_bytes(lab), time.monotonic()
        took = way(lab, name)
        seconds = took if isinstance(took, float) else time.monotonic() - began
        copies = (sent_bytes(lab) - before) / total
    finally:
        calls.close()
        shutil.rmtree(layout)
    if way is together:
        forget(lab, name)
    return seconds, copies


def report(nodes: int, mbit: int, shared: list[tuple[float, float]], alone: list[tuple[float, float]]) -> None:
    link = f"registry's link {mbit} mbit" if mbit else "no limit"
    for way, rounds in (("from each other", shared), ("direct pulls", alone)):
        seconds, copies = (statistics.median(values) for values in zip(*rounds, strict=True))
        figures.add(f"{nodes} nodes, {link}, {way}", seconds, "s")
        figures.add(f"{nodes} nodes, {link}, {way}: copies the registry sends", copies)
        print(f"  {link:<28} {way:<16} {seconds:7.2f} s   {copies:6.2f} copies", flush=True)
    share = statistics.median(mine / other for (mine, _), (other, _) in zip(shared, alone, strict=True))
    figures.add(f"{nodes} nodes, {link}: time as a share of direct pulls", share)
    print(f"  {link:<28} share of the time {share:5.2f}", flush=True)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--nodes", type=int, default=20)
    words.add_argument("--mb", type=int, default=48)
    words.add_argument("--mbit", type=int, default=100)
    words.add_argument("--rounds", type=int, default=1)
    words.add_argument("--one", nargs=3, metavar=("FOLDER", "REGISTRY", "NAME"), help=argparse.SUPPRESS)
    options = words.parse_args()
    if options.one:
        asyncio.run(one(Path(options.one[0]), *options.one[1:]))
        return
    lab = Lab(f"bench-{secrets.token_hex(3)}")
    os.environ["SHOAL_CONFIG_DIR"] = f"/tmp/{lab.name}"
    try:
        lab.ready_s = 180.0
        lab.up(options.nodes, cpus=float(os.cpu_count() or 1), memory_bytes=1 << 30, node_timeout_s=NODE_TIMEOUT_S)
        for mbit in (options.mbit, 0):
            limit(lab, mbit)
            rounds = [[measure(lab, options.mb << 20, way) for way in (together, direct)] for _ in range(options.rounds)]
            report(options.nodes, mbit, [row[0] for row in rounds], [row[1] for row in rounds])
    finally:
        lab.down()
        shutil.rmtree(f"/tmp/{lab.name}", ignore_errors=True)


if __name__ == "__main__":
    figures.run(main)
