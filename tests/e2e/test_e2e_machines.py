"""A node group in a lab: machines come when replicas have no room, and go, drained, when nobody needs them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import LabUnderTest, eventually
from tests.patience import PATIENCE

GROUP = f"""
name: burst
max: 2
template: {{cpus: 1, memory: 512M, labels: {{pool: burst}}}}
provider: {{lab: {{}}}}
idle: 2s
after_add: 2s
provision: {int(90 * PATIENCE)}s
back_off: 2s
"""
STACK = """
services:
  web:
    image: shoal/web:1.0
    init: true
    stop_grace_period: 2s
    deploy:
      replicas: 1
      resources: {reservations: {cpus: "0.4"}}
"""


@pytest.fixture
def small_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabUnderTest]:
    """One of its own: machines are added to it and taken away."""
    lab = LabUnderTest(tmp_path_factory.mktemp("config"), 1)
    yield lab
    lab.down()


def group(lab: LabUnderTest) -> Any:
    return lab.json("nodegroup", "inspect", "burst")[0]


def states(lab: LabUnderTest) -> list[str]:
    return [row["state"] for row in group(lab)["members"]]


def test_machines_come_for_who_has_no_room_and_go_when_they_are_idle(small_lab: LabUnderTest, tmp_path: Path) -> None:
    lab = small_lab
    cpus = lab.json("node", "ls")[0]["cpus"]
    file = tmp_path / "group.yaml"
    file.write_text(GROUP)
    assert lab("nodegroup", "apply", "-f", str(file)) == "burst created\n"
    assert lab("nodegroup", "apply", "-f", str(file)) == "burst unchanged\n"
    lab.apply(tmp_path, STACK, "shop")
    full = int(cpus / 0.4)
    lab("service", "scale", f"shop_web={full + 4}", "--no-wait")
    eventually(lambda: states(lab) == ["ready", "ready"], "two machines", 120)
    eventually(lambda: len(lab.running("shop_web")) == full + 4, "everybody has a place", 60)
    placed = {row["node"] for row in lab.running("shop_web")}
    assert placed == {"n1", "burst-1", "burst-2"}
    labels = [row["labels"] for row in lab.json("node", "ls") if row["name"] != "n1"]
    assert labels == 2 * [{"pool": "burst", "shoal.group": "burst"}]
    assert "2 machines of 0 to 2" in lab("nodegroup", "explain", "burst")

    lab("service", "scale", f"shop_web={full + 5}", "--no-wait")
    said = eventually(lambda: [note for note in group(lab)["notes"] if "wait" in note], "it says why it adds no more")
    assert said == [f"shop_web.{full + 5} waits: the group has 2 machines of at most 2"]

    lab("service", "scale", "shop_web=1")
    eventually(lambda: states(lab) == [], "both are gone", 120)
    assert [row["name"] for row in lab.json("node", "ls")] == ["n1"]
    assert [row["node"] for row in lab.running("shop_web")] == ["n1"]
    assert [row["name"] for row in json.loads(lab("lab", "status", "--name", lab.name, "-o", "json"))["nodes"]] == ["n1"]
    decided = [row["sentence"] for row in group(lab)["history"]]
    assert sum("is drained" in text for text in decided) == 2
    assert lab("nodegroup", "rm", "burst") == "burst\n"
    assert lab.json("nodegroup", "ls") == []


def test_a_wrong_file_is_refused_with_its_line(small_lab: LabUnderTest, tmp_path: Path) -> None:
    file = tmp_path / "group.yaml"
    file.write_text(GROUP.replace("idle:", "idel:"))
    done = small_lab.call("nodegroup", "apply", "-f", str(file))
    assert (done.code, done.err) == (1, f"shoal: {file}:6:7: idel: unknown field 'idel' (did you mean 'idle'?)\n")
    said = small_lab.call("nodegroup", "inspect", "none").err
    assert said == "shoal: no node group is called none: see `shoal nodegroup ls`\n"
