"""The demo images: built from Debian packages, pulled from the lab's registry, run in a container root."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.images.overlay import mount_root, remove_root
from agent.images.records import RegistryConfig
from agent.images.roots import check_root
from agent.images.store import ImageStore
from agent.images.trees import remove_tree
from deploy.images.build import build_demo_images
from lab.images import CACHE
from lab.registry import LabRegistry

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="the demo images are built from Debian packages"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def layouts() -> dict[str, Path]:
    return build_demo_images(CACHE)


@pytest.fixture
async def store(tmp_path: Path, layouts: dict[str, Path]) -> AsyncIterator[ImageStore]:
    registry = LabRegistry(tmp_path / "registry")
    await registry.start()
    for name, path in layouts.items():
        await registry.push_layout(path, name)
    opened = ImageStore(tmp_path / "store", config=RegistryConfig(mirrors={"docker.io": (registry.endpoint,)}))
    yield opened
    await opened.close()
    await registry.stop()
    remove_tree(tmp_path)


def test_a_second_build_takes_no_time(layouts: dict[str, Path]) -> None:
    before = time.process_time()
    assert build_demo_images(CACHE) == layouts
    assert time.process_time() - before < 0.5


def test_equal_sources_give_equal_images(layouts: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(CACHE / "debs", tmp_path / "debs")
    command = [sys.executable, str(Path(__file__).parents[2] / "deploy" / "images" / "build.py"), str(tmp_path)]
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONHASHSEED": "7"}
    again = json.loads(subprocess.run(command, check=True, capture_output=True, env=env).stdout)
    assert sorted(again) == sorted(layouts)
    for name in ("busybox:latest", "shoal/web:2.0", "registry:2"):
        digests = [json.loads((Path(top) / "index.json").read_text()) for top in (layouts[name], again[name])]
        assert digests[0] == digests[1], name


def run_in(root: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    argv = ["/usr/sbin/chroot", str(root), *command]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": "/bin:/usr/bin"})


async def test_they_are_pulled_and_run(store: ImageStore, tmp_path: Path) -> None:
    names = ("shoal/web:1.0", "shoal/web:2.0", "busybox:1.35", "registry:2")
    web, web2, box, registry = [await store.pull(name) for name in names]
    assert web.size_bytes < 60 << 20
    assert web.layers[:2] == web2.layers[:2]
    assert box.layers == web.layers[:1] == registry.layers[:1]
    for image, command, wanted in (
        (box, ["/bin/sh", "-c", "echo $((6*7)); id -un"], "42\nroot\n"),
        (web, ["/usr/bin/python3", "-I", "-S", "-c", "import ssl, json, asyncio; print('ok')"], "ok\n"),
        (web, ["/bin/cat", "/app/VERSION"], "1.0\n"),
        (web2, ["/bin/cat", "/app/VERSION"], "2.0\n"),
        (registry, ["/bin/sh", "-c", "/entrypoint.sh garbage-collect -h | head -c 17"], "`garbage-collect`"),
    ):
        place = tmp_path / "box"
        upper, work, root = (place / name for name in ("upper", "work", "root"))
        for directory in (upper, work, root):
            directory.mkdir(parents=True)
        mount_root(image.layers, upper, work, root)
        try:
            check_root(root, ["/etc/hosts", "/var/run/x"], image.config.working_dir or "/")
            done = await asyncio.to_thread(run_in, root, command)
            assert (done.stdout, done.returncode) == (wanted, 0), done.stderr
        finally:
            remove_root(place, root)
    assert not os.path.exists(tmp_path / "box")
