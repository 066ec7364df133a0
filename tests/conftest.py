"""Long files first: those that run beside each other then end together (`--no-loadscope-reorder`, tests/run.sh)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

LONG: Final = (
    "test_e2e_matrix", "test_e2e_leaks", "test_e2e_balance", "test_e2e_ipv6", "test_e2e_autoscale", "test_e2e_samples",
    "test_network_balancer", "test_network_driver", "test_controller_dispatch", "test_store_faults", "test_build",
    "test_images_demo", "test_runtime_recover", "test_controller_autoscale", "test_controller_process",
    "test_controller_agents", "test_agent_daemon", "test_controller_credentials", "test_bench_control_plane",
    "test_controller_priority",
)  # fmt: skip
"""The longest first; after them those with the most tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests: dict[Path, int] = {}
    for item in items:
        tests[item.path] = tests.get(item.path, 0) + 1
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: (place.get(item.path.stem, len(LONG)), -tests[item.path]))
