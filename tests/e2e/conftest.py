"""One lab of three nodes for all tests that can share it; every test leaves it as it found it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import LabUnderTest, eventually, remove_all
from tests.patience import PATIENCE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(240 * PATIENCE))


@pytest.fixture(scope="session")
def shared_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabUnderTest]:
    lab = LabUnderTest(tmp_path_factory.mktemp("config"), int(os.environ.get("SHOAL_TEST_NODES", "3")))  # fewer: tests/vm
    yield lab
    lab.down()


@pytest.fixture
def lab(shared_lab: LabUnderTest) -> Iterator[LabUnderTest]:
    """The shared lab, with three ready nodes and nothing running, before and after."""
    yield shared_lab
    remove_all(shared_lab)
    for machine in shared_lab.json("lab", "status", "--name", shared_lab.name)["nodes"]:
        if machine["power"] == "off":
            shared_lab.lab("start", machine["name"])
    shared_lab.lab("heal")
    shared_lab("node", "activate", *shared_lab.node_states())
    eventually(lambda: set(shared_lab.node_states().values()) == {"ready"}, "every node ready again")
    eventually(lambda: not shared_lab.replicas(every=True), "no replica left")
