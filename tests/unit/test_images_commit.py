"""The config of an image made of a container, and the instructions that change it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.images.commit import Said, committed
from agent.images.manifest import parse_config
from model.errors import BadInput
from model.image_changes import changed

BASE: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Healthcheck": {"Test": ["NONE"]}},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]},
    "history": [{"created_by": "ADD"}],
}
RUN = {"Cmd": ["sh", "-c", "install"], "Env": ["PATH=/bin", "A=1"], "User": "", "WorkingDir": "/srv"}
SAID = Said("2026-11-22T12:00:00Z", "c" * 64, "ana", "apache installed", ("ENV B=2",))
NEW = "sha256:" + "2" * 64


def test_a_container_becomes_one_layer_and_one_step() -> None:
    raw = committed(BASE, RUN, SAID, NEW)
    assert raw == committed(BASE, RUN, SAID, NEW)
    found = json.loads(raw)
    assert found["rootfs"]["diff_ids"] == [*BASE["rootfs"]["diff_ids"], NEW]
    assert found["history"] == [
        {"created_by": "ADD"},
        {"created": SAID.created, "created_by": "sh -c install", "author": "ana", "comment": "apache installed"},
    ]
    assert (found["author"], found["comment"], found["os"]) == ("ana", "apache installed", "linux")
    parsed = parse_config(raw, "image")
    assert (parsed.config.cmd, parsed.config.working_dir, parsed.platform) == (("sh", "-c", "install"), "/srv", "linux/amd64")
    assert parsed.config.env == (("PATH", "/bin"), ("A", "1"), ("B", "2"))
    assert parsed.config.healthcheck is not None


def test_what_wrote_nothing_adds_a_step_without_a_layer() -> None:
    found = json.loads(committed(BASE, RUN, SAID, None))
    assert (found["rootfs"], found["history"][-1]["empty_layer"]) == (BASE["rootfs"], True)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (('CMD ["serve", "-x"]',), {"Cmd": ["serve", "-x"]}),
        (("cmd serve -x",), {"Cmd": ["/bin/sh", "-c", "serve -x"]}),
        (("ENTRYPOINT [\"/in\"]",), {"Entrypoint": ["/in"], "Cmd": None}),
        (("CMD serve", "ENTRYPOINT [\"/in\"]"), {"Entrypoint": ["/in"], "Cmd": ["/bin/sh", "-c", "serve"]}),
        (('ENV A=2 B="x y"',), {"Env": ["PATH=/bin", "A=2", "B=x y"]}),
        (("ENV B some words",), {"Env": ["PATH=/bin", "B=some words"]}),
        (("LABEL by=me", "LABEL for=you"), {"Labels": {"by": "me", "for": "you"}}),
        (("EXPOSE 80 53/udp",), {"ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
        (('VOLUME ["/data"]', "VOLUME /a /b"), {"Volumes": {"/data": {}, "/a": {}, "/b": {}}}),
        (("USER ana", "WORKDIR /srv", "STOPSIGNAL SIGINT"), {"User": "ana", "WorkingDir": "/srv", "StopSignal": "SIGINT"}),
    ],
)  # fmt: skip
def test_instructions(changes: tuple[str, ...], found: dict[str, Any]) -> None:
    base = {"Cmd": ["sh"], "Env": ["PATH=/bin"]}
    assert changed(base, changes) == base | found


@pytest.mark.parametrize(
    "line", ["", "CMD", "RUN make", "ENV A", "ENV A=1 B", "LABEL =x", "EXPOSE web", 'ENV A="x', "FROM debian"]
)
def test_what_is_no_instruction_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(BadInput, match="--change"):
        changed({}, (line,))
