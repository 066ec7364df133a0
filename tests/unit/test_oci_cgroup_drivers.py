"""The cgroup drivers against plain directories that look like /sys/fs/cgroup (the kernel's own behaviour: tests/root)."""

from __future__ import annotations

from pathlib import Path

from agent.runtime.cgroups import CgroupV1, CgroupV2, cgroup_driver


def _v2(root: Path) -> Path:
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpuset cpu io memory pids rdma\n")
    (root / "cgroup.subtree_control").write_text("cpu\n")
    return root


def test_the_driver_is_chosen_by_the_tree(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    assert isinstance(cgroup_driver(tmp_path / "one"), CgroupV1)
    assert isinstance(cgroup_driver(_v2(tmp_path / "two")), CgroupV2)


def test_v2_hands_the_missing_controllers_down(tmp_path: Path) -> None:
    root = _v2(tmp_path / "two")
    parent = root / "shoal"
    parent.mkdir()
    (parent / "cgroup.controllers").write_text("memory pids\n")
    (parent / "cgroup.subtree_control").write_text("")
    CgroupV2(root).prepare("shoal")
    assert (root / "cgroup.subtree_control").read_text() == "+pids", "a plain file keeps the last write; cpu was on already"
    assert (parent / "cgroup.subtree_control").read_text() == "+pids"


def test_v2_kills_all_at_once_where_the_kernel_can(tmp_path: Path) -> None:
    root = _v2(tmp_path / "two")
    for name in ("new", "old"):
        (root / name).mkdir()
        (root / name / "cgroup.procs").write_text("")
    (root / "new/cgroup.kill").touch()
    for name in ("new", "old", "gone"):
        CgroupV2(root).kill(f"/{name}")
    assert (root / "new/cgroup.kill").read_text() == "1"
    assert not (root / "old/cgroup.kill").exists(), "kernels before 5.14 have no such file: the processes one by one"


def test_v1_makes_the_parent_in_every_tree_and_fills_cpusets(tmp_path: Path) -> None:
    for name in ("cpu", "cpuset", "memory", "unified"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").write_text("")
    (tmp_path / "plain").mkdir()
    (tmp_path / "cpuacct").symlink_to("cpu")
    (tmp_path / "cpuset/cpuset.cpus").write_text("0-1\n")
    (tmp_path / "cpuset/lab").mkdir()
    (tmp_path / "cpuset/lab/cpuset.cpus").write_text("\n")
    CgroupV1(tmp_path).prepare("lab")
    assert (tmp_path / "cpu/lab").is_dir()
    assert (tmp_path / "cpuset/lab/cpuset.cpus").read_text() == "0-1\n"
    assert not (tmp_path / "plain/lab").exists()
    assert not (tmp_path / "unified/lab").exists()


def test_usage_of_a_cgroup_that_is_gone_is_none(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    driver = CgroupV1(tmp_path)
    files = driver.open_usage("/shoal/x")
    assert files.read(1.0) is None
    files.close()
    driver.remove("/shoal/x")


def test_removing_takes_what_the_runtime_left_as_a_plain_directory(tmp_path: Path) -> None:
    left = tmp_path / "unified/shoal/x"
    left.mkdir(parents=True)
    (left / "cgroup.procs").write_text("0")
    CgroupV1(tmp_path).remove("/shoal/x")
    assert not left.exists()
