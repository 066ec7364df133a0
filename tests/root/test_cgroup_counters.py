"""What is sampled of a cgroup, by few files and not all of them each time, against the whole of its files."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.plan.container import Usage
from agent.plan.samples import Counters
from agent.runtime.cgroups import ROOT, UsageFiles, cgroup_driver

pytestmark = pytest.mark.root
SAMPLES = 12
"""More than twice as many as lie between two looks at all files."""


@pytest.fixture
def busy() -> Iterator[tuple[subprocess.Popen[bytes], UsageFiles]]:
    """A process that always runs, and the files of its cgroup."""
    driver = cgroup_driver()
    parent = f"shoal-test-{os.getpid()}"
    driver.prepare(parent)
    trees = [ROOT] if driver.version == 2 else [tree for tree in ROOT.iterdir() if (tree / parent).is_dir()]
    process = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        for tree in trees:
            join(tree / parent / "one", process.pid)
        files = driver.open_usage(f"/{parent}/one")
        yield process, files
        files.close()
    finally:
        process.kill()
        process.wait()
        driver.remove(f"/{parent}")


def join(folder: Path, pid: int) -> None:
    folder.mkdir()
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (folder / name).exists() and not (folder / name).read_text().strip():
            (folder / name).write_text((folder.parent / name).read_text())
    (folder / "cgroup.procs").write_text(str(pid))


def sampled(files: UsageFiles) -> Counters:
    found = files.sample(time.monotonic())
    assert found is not None
    return found


def read(files: UsageFiles) -> Usage:
    found = files.read(0.0)
    assert found is not None
    return found


def test_samples_say_what_all_files_say(busy: tuple[subprocess.Popen[bytes], UsageFiles]) -> None:
    process, files = busy
    for _ in range(SAMPLES):
        before, found, after = read(files), sampled(files), read(files)
        assert before.cpu_s <= found.cpu_s <= after.cpu_s
        assert found.pids == 1
        assert (before.read_bytes, before.write_bytes) == (after.read_bytes, after.write_bytes), "it has no business with disks"
    assert (found.read_bytes_per_s, found.write_bytes_per_s) == (0.0, 0.0)
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    stood = [sampled(files) for _ in range(SAMPLES)][-1]
    whole = read(files)
    assert stood.cpu_s == whole.cpu_s
    assert stood.pids == whole.pids
    assert stood.memory_bytes == pytest.approx(whole.memory_bytes, abs=1 << 20), "a little is held in store for each CPU"
    os.kill(process.pid, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while sampled(files).cpu_s == stood.cpu_s:
        assert time.monotonic() < deadline, "it runs again, and no sample says so"
