"""The network namespaces of a lab's machines."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agent.network import namespaces
from lab import underlay

pytestmark = pytest.mark.root


def test_a_machine_has_loopback_also_where_br_netfilter_is_not_loaded(tmp_path: Path) -> None:
    def work() -> None:
        underlay.prepare_inside(tmp_path / "no/such/file")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))

    try:
        fd, _ = namespaces.create(tmp_path / "net", work)
        os.close(fd)
    finally:
        namespaces.remove(tmp_path / "net")
