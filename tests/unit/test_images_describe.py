"""An image in Docker's words: inspect, history, ids of layers."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.images import describe
from agent.images.records import Image, ImageConfig

BASE, TOP = "sha256:" + "1" * 64, "sha256:" + "2" * 64
IMAGE = Image(
    id="sha256:" + "a" * 64,
    names=("linuxtips/apache:1.0", "linuxtips/apache@sha256:" + "d" * 64, "localhost:5000/apache:latest"),
    digest="sha256:" + "d" * 64,
    layers=(Path("/layers/1/fs"), Path("/layers/2/fs")),
    config=ImageConfig(cmd=("serve",), env=(("A", "1"),), labels=(("by", "me"),), volumes=("/data",)),
    size_bytes=300,
    created=datetime(2026, 11, 1, tzinfo=UTC),
)
RAW: dict[str, Any] = {
    "created": "2026-11-01T00:00:00.123456789Z",
    "architecture": "amd64",
    "os": "linux",
    "docker_version": "20.10.5",
    "container": "c0ffee",
    "container_config": {"Cmd": ["/bin/sh", "-c", '#(nop) CMD ["apachectl"]']},
    "config": {"Cmd": ["apachectl"], "Env": ["PATH=/bin"], "ExposedPorts": {"80/tcp": {}}},
    "rootfs": {"type": "layers", "diff_ids": [BASE, TOP]},
    "history": [
        {"created": "2026-10-01T00:00:00Z", "created_by": "ADD file in /", "comment": "base"},
        {"created": "2026-10-01T00:00:00Z", "created_by": 'CMD ["/bin/bash"]', "empty_layer": True},
        {"created": "2026-11-01T00:00:00Z", "created_by": "RUN apt-get install apache2"},
        {"created": "2026-11-01T00:00:00Z", "created_by": "EXPOSE 80", "empty_layer": True, "comment": "mine"},
    ],
}
DIGESTS = {"linuxtips/apache:1.0": "sha256:" + "d" * 64, "localhost:5000/apache:latest": "sha256:" + "e" * 64}


def test_inspect_has_dockers_keys() -> None:
    found = describe.inspected(IMAGE, RAW, DIGESTS)
    assert list(found) == [
        "Id", "RepoTags", "RepoDigests", "Parent", "Comment", "Created", "Container", "ContainerConfig", "DockerVersion",
        "Author", "Config", "Architecture", "Os", "Size", "VirtualSize", "GraphDriver", "RootFS", "Metadata",
    ]  # fmt: skip
    assert found["RepoTags"] == ["linuxtips/apache:1.0", "localhost:5000/apache:latest"]
    assert found["RepoDigests"] == ["linuxtips/apache@sha256:" + "d" * 64, "localhost:5000/apache@sha256:" + "e" * 64]
    assert (found["Config"]["Cmd"], found["Config"]["Hostname"], found["Config"]["Labels"]) == (["apachectl"], "", None)
    assert found["ContainerConfig"]["Cmd"][-1] == '#(nop) CMD ["apachectl"]'
    assert (found["Comment"], found["DockerVersion"], found["Container"]) == ("mine", "20.10.5", "c0ffee")
    assert found["RootFS"] == {"Type": "layers", "Layers": [BASE, TOP]}
    assert found["GraphDriver"]["Data"] == {"LowerDir": "/layers/1/fs", "UpperDir": "/layers/2/fs"}
    assert (found["Size"], found["VirtualSize"]) == (300, 300)


def test_inspect_of_an_image_whose_own_words_are_gone_tells_what_is_understood() -> None:
    config = describe.inspected(IMAGE, {}, {})["Config"]
    assert (config["Cmd"], config["Env"], config["Labels"]) == (["serve"], ["A=1"], {"by": "me"})
    assert (config["Volumes"], config["Entrypoint"]) == ({"/data": {}}, None)


def test_history_is_newest_first_and_only_its_top_has_an_id() -> None:
    rows = describe.history(IMAGE.id, IMAGE.names, RAW, [200, 100])
    assert [row["Id"] for row in rows] == [IMAGE.id, "<missing>", "<missing>", "<missing>"]
    assert [row["Size"] for row in rows] == [0, 100, 0, 200]
    assert [row["CreatedBy"] for row in rows][::3] == ["EXPOSE 80", "ADD file in /"]
    assert rows[0]["Tags"] == ["linuxtips/apache:1.0", "localhost:5000/apache:latest"]
    assert rows[3]["Created"] == int(datetime(2026, 10, 1, tzinfo=UTC).timestamp())


def test_history_of_an_image_that_tells_none_has_a_row_for_each_layer() -> None:
    assert [row["Size"] for row in describe.history(IMAGE.id, IMAGE.names, {"history": "none"}, [200, 100])] == [100, 200]
    assert describe.history(IMAGE.id, IMAGE.names, {}, []) == []


def test_a_layers_docker_name_covers_what_lies_below() -> None:
    both = f"{BASE} {TOP}".encode()
    assert describe.chain_ids([BASE, TOP]) == (BASE, f"sha256:{hashlib.sha256(both).hexdigest()}")
    assert describe.chain_ids([]) == ()
