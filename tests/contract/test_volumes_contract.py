"""What every Volumes promises: those on the disk and those in memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.plan.mounts import mount_plans
from agent.plan.records import Life, ReplicaId, WantedVolume
from agent.volumes.memory import MemoryVolumes
from agent.volumes.port import Volumes
from agent.volumes.prepare import host_mounts
from agent.volumes.store import VolumeStore
from model.errors import Conflict, NotFound, RuntimeFailed
from model.spec import ContainerSpec, Mount, ServiceSpec

pytestmark = pytest.mark.contract


@dataclass
class Rig:
    """`make`: a directory on the node; `again`: the volumes as the next agent finds them."""

    volumes: Volumes
    again: Callable[[], Volumes]
    make: Callable[[str], None]
    users: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture(params=["disk", "memory"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    users: dict[str, list[str]] = {}
    if request.param == "memory":
        memory = MemoryVolumes(lambda: users, time.time, tmp_path / "volumes")
        return Rig(memory, lambda: memory, lambda path: memory.paths.update({path: None}), users)

    def store() -> VolumeStore:
        return VolumeStore(tmp_path / "volumes", lambda: users)

    return Rig(store(), store, lambda path: Path(path).mkdir(parents=True), users)


def names(volumes: Volumes) -> list[str]:
    return [volume.name for volume in volumes.all()]


def bound(device: str) -> WantedVolume:
    return WantedVolume("bound", options=(("type", "none"), ("o", "bind"), ("device", device)))


def test_a_volume_is_made_once_filled_once_and_outlives_the_agent(rig: Rig) -> None:
    filled: list[Path] = []
    wanted = WantedVolume("data", labels=(("a", "1"),))
    first = rig.volumes.ensure(wanted, filled.append)
    assert rig.volumes.ensure(wanted, filled.append) == first == rig.again().get("data")
    assert filled == [first.path]
    assert (first.labels, first.anonymous) == ({"a": "1"}, False)
    assert rig.volumes.get("other") is None


def test_a_cut_off_fill_leaves_no_volume(rig: Rig) -> None:
    def cut_off(_: Path) -> None:
        raise RuntimeFailed("cut off")

    with pytest.raises(RuntimeFailed, match="cut off"):
        rig.volumes.ensure(WantedVolume("data"), cut_off)
    assert names(rig.again()) == []
    filled: list[Path] = []
    rig.volumes.ensure(WantedVolume("data"), filled.append)
    assert len(filled) == 1


def test_anonymous_ones_go_with_their_replica_and_named_ones_stay(rig: Rig) -> None:
    rig.volumes.ensure(WantedVolume("named"))
    rig.volumes.ensure(WantedVolume("a" * 64), anonymous=True)
    rig.volumes.release(["named", "a" * 64, "unknown"])
    assert names(rig.again()) == ["named"]


def test_who_is_used_is_not_removed(rig: Rig) -> None:
    rig.volumes.ensure(WantedVolume("data"))
    rig.users["data"] = ["shop_db.2", "shop_db.1"]
    with pytest.raises(Conflict, match=r"volume data is used by shop_db\.1, shop_db\.2"):
        rig.volumes.remove("data")
    assert rig.volumes.prune(everything=True) == []
    rig.users.clear()
    rig.volumes.remove("data")
    with pytest.raises(NotFound):
        rig.volumes.remove("data")
    rig.volumes.remove("data", force=True)


def test_prune_takes_anonymous_ones_and_all_only_when_asked(rig: Rig) -> None:
    for name in ("named", "kept"):
        rig.volumes.ensure(WantedVolume(name))
    rig.volumes.ensure(WantedVolume("a" * 64), anonymous=True)
    assert rig.volumes.prune(everything=False) == ["a" * 64]
    assert rig.volumes.prune(everything=True, keep=("kept",)) == ["named"]
    assert names(rig.again()) == ["kept"]


def test_a_device_must_be_there_and_is_mounted_itself(rig: Rig, tmp_path: Path) -> None:
    device = str(tmp_path / "disk")
    with pytest.raises(RuntimeFailed, match="is not a directory on this node"):
        rig.volumes.ensure(bound(device))
    rig.make(device)
    assert str(rig.volumes.ensure(bound(device)).path) == device


@pytest.mark.parametrize("wanted", [WantedVolume("data", "nfs"), WantedVolume("data", options=(("size", "1g"),))])
def test_what_is_not_served_is_refused_for_good(rig: Rig, wanted: WantedVolume) -> None:
    with pytest.raises(RuntimeFailed) as caught:
        rig.volumes.ensure(wanted)
    assert caught.value.permanent
    assert names(rig.volumes) == []


@pytest.mark.parametrize("name", ["../x", ".hidden", "", "a" * 300])
def test_names_are_names(rig: Rig, name: str) -> None:
    with pytest.raises(RuntimeFailed, match="volume name"):
        rig.volumes.ensure(WantedVolume(name))


def test_mounts_of_a_replica(rig: Rig, tmp_path: Path) -> None:
    source = str(tmp_path / "here")
    mounts = (
        Mount("volume", "/data", "shop_data", read_only=True),
        Mount("volume", "/scratch"),
        Mount("bind", "/x", source),
        Mount("tmpfs", "/tmp", tmpfs_size_bytes=1 << 20),
    )
    life = Life(ReplicaId("s1", 1, 5, 1), ServiceSpec("shop_db", ContainerSpec("db:1", mounts=mounts)), "shop_db.1")
    data, scratch, bind, tmpfs = host_mounts(mount_plans(life), rig.volumes, {}, (), tmp_path / "copies")
    assert (data.source, data.read_only) == (str(tmp_path / "volumes/shop_data/_data"), True)
    assert scratch.source.startswith(str(tmp_path / "volumes"))
    assert (bind.source, tmpfs.source, tmpfs.tmpfs_size_bytes) == (source, "", 1 << 20)


def test_binds_and_parts_that_are_not_there(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailed, match="does not exist on this node"):
        rig.volumes.bind_source(Mount("bind", "/x", str(tmp_path / "none"), create_host_path=False))
    with pytest.raises(RuntimeFailed, match="not an absolute path"):
        rig.volumes.bind_source(Mount("bind", "/x", "none"))
    volume = rig.volumes.ensure(WantedVolume("data"))
    rig.make(str(volume.path / "sub"))
    rig.volumes.check_part(volume, "sub")
    for subpath in ("../..", "missing"):
        with pytest.raises(RuntimeFailed, match="subpath"):
            rig.volumes.check_part(volume, subpath)
