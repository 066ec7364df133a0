"""Volumes of a node: made, filled, kept, refused."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.plan.container import HostMount
from agent.plan.mounts import anonymous_name, mount_plans, volume_users
from agent.plan.records import ImageFacts, Life, ReplicaId, WantedVolume
from agent.volumes.port import check_options
from agent.volumes.prepare import host_mounts
from agent.volumes.store import VolumeStore
from model.errors import Conflict, NotFound, RuntimeFailed
from model.spec import ContainerSpec, Mount, ServiceSpec

ONE = ReplicaId("s1", 1, 5, 1)


def life(*mounts: Mount, image_volumes: tuple[str, ...] = ()) -> Life:
    spec = ServiceSpec("shop_db", ContainerSpec("db:1", mounts=mounts))
    return Life(ONE, spec, "shop_db.1", image=ImageFacts("sha256:1", volumes=image_volumes))


def store(path: Path, users: dict[str, list[str]] | None = None) -> VolumeStore:
    return VolumeStore(path / "volumes", lambda: users or {})


def prepare(volumes: VolumeStore, replica: Life, *known: WantedVolume) -> tuple[HostMount, ...]:
    return host_mounts(mount_plans(replica), volumes, {volume.name: volume for volume in known}, (), Path("/nowhere"))


def test_a_named_volume_is_made_once_and_keeps_its_content(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    (first,) = prepare(volumes, life(Mount("volume", "/data", "shop_data")))
    Path(first.source, "file").write_text("kept")
    (second,) = prepare(volumes, life(Mount("volume", "/data", "shop_data")))
    assert first == second
    assert Path(second.source, "file").read_text() == "kept"
    assert [volume.name for volume in volumes.all()] == ["shop_data"]


def test_image_volumes_become_anonymous_unless_a_mount_covers_them(tmp_path: Path) -> None:
    replica = life(Mount("volume", "/data/", "named"), image_volumes=("/data", "/logs"))
    plans = mount_plans(replica)
    assert [(plan.mount.target, plan.anonymous) for plan in plans] == [("/data/", False), ("/logs", True)]
    assert plans[1].volume == anonymous_name(ONE, "/logs")
    assert volume_users([replica])["named"] == ["shop_db.1"]


def test_anonymous_volumes_go_with_their_replica_named_ones_stay(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    replica = life(Mount("volume", "/a", "named"), Mount("volume", "/b"))
    prepare(volumes, replica)
    volumes.release(plan.volume for plan in mount_plans(replica))
    assert [volume.name for volume in volumes.all()] == ["named"]


def test_a_volume_in_use_is_not_removed(tmp_path: Path) -> None:
    volumes = store(tmp_path, {"data": ["shop_db.1"]})
    volumes.ensure(WantedVolume("data"))
    with pytest.raises(Conflict, match=r"used by shop_db\.1"):
        volumes.remove("data")
    assert volumes.prune(everything=True) == []
    with pytest.raises(NotFound):
        volumes.remove("other")


def test_prune_takes_anonymous_ones_and_all_only_when_asked(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    volumes.ensure(WantedVolume("named"))
    volumes.ensure(WantedVolume("kept"))
    volumes.ensure(WantedVolume("a" * 64), anonymous=True)
    assert volumes.prune(everything=False) == ["a" * 64]
    assert volumes.prune(everything=True, keep=("kept",)) == ["named"]


def test_a_volume_is_filled_only_when_new(tmp_path: Path) -> None:
    volumes, calls = store(tmp_path), list[Path]()
    for _ in range(2):
        volumes.ensure(WantedVolume("data"), calls.append)
    assert calls == [tmp_path / "volumes/data/_data"]


def test_a_cut_off_fill_begins_again(tmp_path: Path) -> None:
    volumes = store(tmp_path)

    def cut_off(path: Path) -> None:
        (path / "half").write_text("half")
        raise RuntimeFailed("cut off")

    with pytest.raises(RuntimeFailed):
        volumes.ensure(WantedVolume("data"), cut_off)
    volumes.ensure(WantedVolume("data"), lambda path: (path / "whole").touch())
    assert [path.name for path in (tmp_path / "volumes/data/_data").iterdir()] == ["whole"]


def test_two_replicas_that_need_a_new_volume_at_once_make_it_once(tmp_path: Path) -> None:
    volumes, filled = store(tmp_path), list[Path]()
    inside, go_on = threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        filled.append(path)
        inside.set()
        assert go_on.wait(20)
        (path / "content").touch()

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(volumes.ensure, WantedVolume("data"), slow)
        assert inside.wait(20)
        second = pool.submit(volumes.ensure, WantedVolume("data"), slow)
        other = pool.submit(volumes.ensure, WantedVolume("other"))
        assert other.result(20).name == "other", "another volume does not wait"
        go_on.set()
        assert first.result(20) == second.result(20)
    assert len(filled) == 1
    assert (filled[0] / "content").exists()


def test_what_a_container_left_in_a_volume_is_deleted_however_deep(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    here = os.open(volumes.ensure(WantedVolume("data")).path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    volumes.remove("data")
    assert list((tmp_path / "volumes").iterdir()) == []


def test_a_missing_device_or_a_damaged_note_stops_only_who_mounts_it(tmp_path: Path) -> None:
    volumes, device = store(tmp_path), tmp_path / "disk"
    device.mkdir()
    bound = WantedVolume("bound", options=(("type", "none"), ("o", "bind"), ("device", str(device))))
    volumes.ensure(bound)
    content = volumes.ensure(WantedVolume("data")).path
    (content / "file").touch()
    (tmp_path / "volumes/data/volume.json").write_text("")
    device.rmdir()
    assert [volume.name for volume in volumes.all()] == ["bound", "data"]
    assert (volumes.ensure(WantedVolume("data")).path / "file").exists()
    with pytest.raises(RuntimeFailed, match="is not a directory on this node"):
        volumes.ensure(bound)


def test_a_bound_device_is_used_and_never_deleted(tmp_path: Path) -> None:
    device = tmp_path / "disk"
    device.mkdir()
    (device / "file").touch()
    volumes = store(tmp_path)
    wanted = WantedVolume("data", options=(("type", "none"), ("o", "bind"), ("device", str(device))))
    (mount,) = prepare(volumes, life(Mount("volume", "/data", "data")), wanted)
    assert mount.source == str(device)
    volumes.remove("data")
    assert (device / "file").exists()


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("nfs", {}, "driver 'nfs' is not available"),
        ("local", {"type": "nfs", "o": "addr=1.2.3.4", "device": ":/x"}, "type 'nfs' is not served yet"),
        ("local", {"size": "1g"}, "option 'size' is not known"),
        ("local", {"type": "none", "device": "/x"}, "needs o=bind"),
        ("local", {"type": "none", "o": "bind", "device": "x"}, "absolute path"),
    ],
)
def test_what_is_not_served_is_named(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(RuntimeFailed, match=words) as caught:
        check_options("data", driver, options)
    assert caught.value.permanent


def test_binds_make_their_source_only_when_allowed(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    (made,) = prepare(volumes, life(Mount("bind", "/x", str(tmp_path / "new/dir"), read_only=True)))
    assert Path(made.source).is_dir()
    assert made.read_only
    with pytest.raises(RuntimeFailed, match="does not exist on this node"):
        prepare(volumes, life(Mount("bind", "/x", str(tmp_path / "none"), create_host_path=False)))


def test_a_subpath_cannot_leave_its_volume(tmp_path: Path) -> None:
    volumes = store(tmp_path)
    path = volumes.ensure(WantedVolume("data")).path
    (path / "sub").mkdir()
    (path / "out").symlink_to("/")
    (mount,) = prepare(volumes, life(Mount("volume", "/x", "data", subpath="sub")))
    assert (mount.source, mount.subpath) == (str(path), "sub")
    for subpath in ("out/etc", "../..", "missing"):
        with pytest.raises(RuntimeFailed, match="subpath"):
            prepare(volumes, life(Mount("volume", "/x", "data", subpath=subpath)))


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "a" * 300])
def test_names_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeFailed, match="volume name"):
        store(tmp_path).ensure(WantedVolume(name))
