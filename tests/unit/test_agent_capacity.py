"""What a node finds out about itself, shown machines of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.core.capacity import confined, detect

GIB = 1 << 30


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    files = {"proc/self/cgroup": cgroup, "proc/meminfo": f"MemTotal: {8 * GIB // 1024} kB\n"} | files
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.core.capacity._usable_cpus", lambda: 8)


def test_cgroup_v2_counts_the_smallest_limit_on_the_way_up(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cgroup.controllers": "cpu memory pids",
        "sys/fs/cgroup/a/cpu.max": "150000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000",
        "sys/fs/cgroup/a/memory.max": str(2 * GIB), "sys/fs/cgroup/a/b/memory.max": str(3 * GIB),
        "sys/fs/cgroup/a/b/pids.max": "512",
    }  # fmt: skip
    found = detect(machine(tmp_path, "0::/a/b\n", files))
    assert (found.cpus, found.memory_bytes, found.pids, found.cgroup) == (1.5, 2 * GIB, 512, "v2")


def test_cgroup_v1(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu/n1/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu/n1/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/n1/memory.limit_in_bytes": str(GIB),
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    }  # fmt: skip
    found = detect(machine(tmp_path, "4:memory:/n1\n3:cpu,cpuacct:/n1\n0::/\n", files))
    assert (found.cpus, found.memory_bytes, found.pids, found.cgroup) == (2.0, GIB, 0, "v1")


def test_without_limits_it_is_the_machine(tmp_path: Path) -> None:
    found = detect(machine(tmp_path, "0::/\n", {"sys/fs/cgroup/cgroup.controllers": ""}))
    assert (found.cpus, found.memory_bytes) == (8.0, 8 * GIB)


def test_inside_a_container_the_mount_itself_is_looked_at(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cgroup.controllers": "", "sys/fs/cgroup/memory.max": str(GIB)}
    assert detect(machine(tmp_path, "0::/../../x\n", files)).memory_bytes == GIB


def test_the_cgroup_that_stands_for_the_machine_is_the_nearest_with_a_limit(tmp_path: Path) -> None:
    v2 = {
        "sys/fs/cgroup/cgroup.controllers": "cpu memory", "sys/fs/cgroup/lab/n1/memory.max": str(GIB),
        "sys/fs/cgroup/lab/n1/daemons/memory.max": "max", "sys/fs/cgroup/lab/cpu.max": "100000 100000",
    }  # fmt: skip
    assert confined("lab/n1/replicas", machine(tmp_path / "v2", "0::/lab/n1/daemons\n", v2)) == "/lab/n1"
    v1 = {"sys/fs/cgroup/cpu/lab/n1/cpu.cfs_quota_us": "66000", "sys/fs/cgroup/cpu/lab/n1/cpu.cfs_period_us": "100000"}
    assert confined("lab/n1/replicas", machine(tmp_path / "v1", "3:cpu,cpuacct:/lab/n1/daemons\n0::/\n", v1)) == "/lab/n1"
    assert confined("lab/n1/replicas", machine(tmp_path / "free", "0::/a/b\n", {"sys/fs/cgroup/cgroup.controllers": ""})) == ""
    assert confined("/shoal", tmp_path / "v1") == "", "the limit is the daemon's own, its containers are elsewhere"
    limited_root = {"sys/fs/cgroup/cgroup.controllers": "", "sys/fs/cgroup/memory.max": str(GIB)}
    box = machine(tmp_path / "box", "0::/../../x\n", limited_root)
    assert confined("lab/n1/replicas", box) == "", "what is mounted is all there is"
