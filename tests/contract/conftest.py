"""A controller for a whole test module, and an operator of it; a module that needs another kind makes its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.controller_harness import Client, ControllerProcess, controller_process


@pytest.fixture(scope="module")
def controller() -> Iterator[ControllerProcess]:
    with controller_process("--node-timeout", "3s") as process:
        yield process


@pytest.fixture
def operator(controller: ControllerProcess) -> Client:
    return controller.operator()
