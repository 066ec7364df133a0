"""Container roots: mounting many layers both ways, checking what strangers put there, deleting without crossing mounts."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.images import overlay
from agent.images.overlay import (
    knows_the_new_way,
    mount_root,
    mount_root_old,
    mounted_lower_directories,
    remove_root,
    unmount,
    unmount_all,
)
from agent.images.roots import check_root, read_in_root, resolve_in_root
from agent.images.trees import remove_tree
from model.errors import ImageError

pytestmark = pytest.mark.root
_MS_BIND = 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


class Place:
    """Layers and a container's directories below one temporary directory."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.box = top / "box"
        self.upper, self.work, self.root = (self.box / name for name in ("upper", "work", "root"))
        for directory in (self.upper, self.work, self.root):
            directory.mkdir(parents=True)

    def layers(self, count: int, name_chars: int = 64) -> list[Path]:
        made = []
        for number in range(count):
            layer = self.top / "layers" / f"{number:0{name_chars}}" / "fs"
            layer.mkdir(parents=True)
            (layer / f"only-{number}").write_text(str(number))
            (layer / "same").write_text(str(number))
            made.append(layer)
        return made


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for target in (made.root, *made.top.glob("box/upper/*"), *made.top.glob("victim")):
        unmount_all(target)
    remove_tree(made.top)


@pytest.mark.parametrize("count", [1, 3, 300])
@pytest.mark.parametrize("way", [mount_root, mount_root_old], ids=["new", "old"])
def test_layers_are_joined_the_last_on_top(place: Place, count: int, way: object) -> None:
    layers = place.layers(count)
    assert callable(way)
    way(layers, place.upper, place.work, place.root)
    assert (place.root / "same").read_text() == str(count - 1)
    assert len(list(place.root.iterdir())) == count + 1
    (place.root / "same").write_text("mine")
    (place.root / "only-0").unlink()
    assert (layers[-1] / "same").read_text() == str(count - 1)
    assert (layers[0] / "only-0").exists()
    assert not (place.root / "only-0").exists()
    cwd = os.getcwd()
    remove_root(place.box, place.root)
    assert os.getcwd() == cwd
    assert not place.box.exists()
    assert (layers[0] / "only-0").exists()


@pytest.mark.parametrize(
    ("release", "known"), [("6.1.0-56-amd64", False), ("6.8.0", True), ("6.12.3+deb13", True), ("5.15", False), ("odd", True)]
)
def test_old_kernels_are_not_asked_for_what_they_complain_of(release: str, known: bool) -> None:
    assert knows_the_new_way(release) is known


def test_the_old_way_is_taken_when_the_new_is_missing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_SYS_FSOPEN", 9999)  # a kernel without the call answers ENOSYS
    mount_root(place.layers(100), place.upper, place.work, place.root)
    assert (place.root / "same").read_text() == "99"


@pytest.mark.parametrize("old_kernel", [False, True])
def test_a_volatile_root_can_be_mounted_again(place: Place, monkeypatch: pytest.MonkeyPatch, old_kernel: bool) -> None:
    if old_kernel:
        monkeypatch.setattr(overlay, "_SYS_FSOPEN", 9999)
    layers = place.layers(2)
    for text in ("first", "second"):
        mount_root(layers, place.upper, place.work, place.root, volatile=True)
        assert not (place.root / text).exists()
        (place.root / text).write_text(text)
        unmount(place.root)
    mount_root(layers, place.upper, place.work, place.root)
    assert (place.root / "first").read_text() + (place.root / "second").read_text() == "firstsecond"


def test_mounted_layers_are_seen(place: Place) -> None:
    layers = place.layers(3)
    assert not mounted_lower_directories() & {str(layer) for layer in layers}
    mount_root(layers, place.upper, place.work, place.root)
    assert {str(layer) for layer in layers} <= mounted_lower_directories()
    unmount(place.root)
    unmount(place.root)  # not mounted is fine
    assert not mounted_lower_directories() & {str(layer) for layer in layers}


def test_a_busy_root_is_unmounted(place: Place) -> None:
    mount_root(place.layers(2), place.upper, place.work, place.root)
    with (place.root / "same").open():
        unmount(place.root)
        assert not os.path.ismount(place.root)


def test_errors_are_one_line(place: Place) -> None:
    with pytest.raises(ImageError, match="has no layers"):
        mount_root([], place.upper, place.work, place.root)
    with pytest.raises(ImageError, match=r"cannot mount the root .* No such file"):
        mount_root([place.top / "missing"], place.upper, place.work, place.root)
    with pytest.raises(ImageError, match="are not taken"):
        mount_root([place.top / "a,b"], place.upper, place.work, place.root)


def test_redirects_in_a_layer_are_not_followed(place: Place) -> None:
    below, above = place.layers(2)
    (below / "secret").mkdir()
    (below / "secret" / "key").write_text("hidden")
    (above / "door").mkdir()
    os.setxattr(above / "door", "trusted.overlay.redirect", b"/secret")
    mount_root([below, above], place.upper, place.work, place.root)
    with pytest.raises(OSError, match=r"No such file|not permitted"):  # the kernel refuses the look-up
        (place.root / "door" / "key").read_text()


def bind(source: Path, target: Path) -> None:
    assert _libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND, None) == 0


def test_deleting_stops_at_a_bind_mount_of_the_same_disk(place: Place) -> None:
    precious = place.top / "precious"
    (precious / "deep").mkdir(parents=True)
    (precious / "deep" / "file").write_text("alive")
    mounted = place.upper / "volume"
    mounted.mkdir()
    bind(precious, mounted)
    with pytest.raises(ImageError, match="still mounted"):
        remove_tree(place.box)
    assert (precious / "deep" / "file").read_text() == "alive"
    unmount(mounted)
    remove_tree(place.box)
    assert not place.box.exists()


def test_deleting_takes_what_is_written_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = place.work / "busy"
    (directory / "sub").mkdir(parents=True)
    late = iter([directory / "exit", directory / "sub/file"])
    rmdir = os.rmdir

    def written_first(name: str, *, dir_fd: int) -> None:
        if name == "busy" and (path := next(late, None)) is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_text("137")
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", written_first)
    remove_tree(directory)
    assert not directory.exists()


def test_deleting_follows_no_link_and_bears_any_depth(place: Place) -> None:
    precious = place.top / "precious"
    precious.mkdir()
    (precious / "file").write_text("alive")
    (place.upper / "link").symlink_to(precious)
    fd = os.open(place.upper, os.O_RDONLY)
    for _ in range(3000):  # deeper than a path may be long, and than there are descriptors
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    remove_tree(place.box)
    assert not place.box.exists()
    assert (precious / "file").read_text() == "alive"
    remove_tree(place.box)  # gone already is fine


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_kernel_directories_must_be_directories(place: Place, name: str, kind: str) -> None:
    if kind == "link":
        (place.root / name).symlink_to("/etc")
    else:
        (place.root / name).write_text("")
    with pytest.raises(ImageError, match=f"its /{name} is not a directory"):
        check_root(place.root)


def test_missing_kernel_directories_are_fine(place: Place) -> None:
    assert check_root(place.root, ["/data", "/etc/hosts"], "/nowhere") == ("/data", "/etc/hosts")


@pytest.mark.parametrize(
    "path", ["/proc", "/proc/self/fd/9", "/proc/1/root", "//proc/./self", "/x/../proc/self/fd/9", "/door/fd/9"]
)
def test_a_working_directory_below_proc_is_refused(place: Place, path: str) -> None:
    (place.root / "door").symlink_to("proc/self")
    with pytest.raises(ImageError, match="lies below /proc"):
        check_root(place.root, working_dir=path)


@pytest.mark.parametrize("path", ["/", "/proc", "/proc/sys", "/sys/fs", "/door", "/up/proc/x", "/here"])
def test_mounts_over_the_kernels_directories_are_refused(place: Place, path: str) -> None:
    (place.root / "proc").mkdir()
    (place.root / "door").symlink_to("/proc")
    (place.root / "up").symlink_to("../../../../../..")
    (place.root / "here").symlink_to(".")
    with pytest.raises(ImageError, match="is refused"):
        check_root(place.root, [path])


def test_mount_targets_are_resolved_inside_the_root(place: Place) -> None:
    (place.root / "run").mkdir()
    (place.root / "var").mkdir()
    (place.root / "var" / "run").symlink_to("/run")
    (place.root / "etc").mkdir()
    (place.root / "etc" / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (place.root / "out").symlink_to("../../../../etc")
    targets = ["/var/run/app", "/etc/resolv.conf", "/out/x", "/dev/shm"]
    assert check_root(place.root, targets) == (
        "/run/app",
        "/run/systemd/resolve/stub-resolv.conf",
        "/etc/x",
        "/dev/shm",
    )


def test_loops_and_files_in_the_way_are_named(place: Place) -> None:
    (place.root / "loop").symlink_to("loop")
    (place.root / "file").write_text("")
    with pytest.raises(ImageError, match="too many links"):
        resolve_in_root(place.root, "/loop/x")
    with pytest.raises(ImageError, match="a part of it is a file"):
        resolve_in_root(place.root, "/file/x/y")


def test_reading_a_file_never_leaves_the_root(place: Place) -> None:
    (place.top / "secret").write_text("hidden")
    etc = place.root / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (etc / "up").symlink_to("../../../secret")
    (etc / "abs").symlink_to(place.top / "secret")
    os.mkfifo(etc / "pipe")
    os.mknod(etc / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    assert read_in_root(place.root, "/etc/passwd") == b"root:x:0:0::/root:/bin/sh\n"
    assert read_in_root(place.root, "/etc/passwd", 4) == b"root"
    for path in ("/etc/up", "/etc/abs", "/etc/pipe", "/etc/device", "/etc", "/etc/missing"):
        assert read_in_root(place.root, path) is None, path
