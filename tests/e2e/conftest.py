"""One lab of three nodes for all tests that can share it; every test leaves it as it found it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cluster import Lab
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
    own = Lab(shared_lab.name)  # in this process: forty tests are waited for
    for machine in own.record().nodes():
        if not machine.running:
            own.start(machine.name)
    own.partition([], heal=True)
    with own.client() as client:
        for row in client.get("/v1/nodes"):
            if row["availability"] != "active":
                shared_lab("node", "activate", row["name"])
        eventually(lambda: all(row["state"] == "ready" for row in client.get("/v1/nodes")), "every node ready again")
        eventually(lambda: not client.get("/v1/replicas", all=True), "no replica left")
