"""The controller as a process: flags, READY, an orderly end, a small size."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.contract.controller_harness import ROOT, controller_process, eventually

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60)]


def test_ready_is_told_to_systemd_and_the_end_is_orderly(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(30)
        command = [
            "/usr/bin/setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "shoal", "controller", "--data-dir",
            str(tmp_path / "data"), "--api", "127.0.0.1:0", "--dispatch", "127.0.0.1:0", "--advertise", "127.0.0.1",
        ]  # fmt: skip
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert notices.recv(100) == b"READY=1"
                process.terminate()
                assert notices.recv(100) == b"STOPPING=1"
                assert process.wait(15) == 0
            finally:
                process.kill()
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()


def test_the_end_leaves_no_etcd_and_is_quick() -> None:
    with controller_process() as controller:
        assert controller.process is not None
        pid = controller.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert children, "its own etcd"
        assert _resident_bytes(pid) < 110e6
        started = time.monotonic()
        assert controller.stop() == 0
        assert time.monotonic() - started < 8
        assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_a_killed_controller_takes_its_etcd_with_it() -> None:
    with controller_process() as controller:
        assert controller.process is not None
        pid = controller.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        controller.kill()
        eventually(lambda: not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text())


def _resident_bytes(pid: int) -> int:
    (line,) = (row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("flag", ["--api", "--dispatch"])
def test_a_taken_port_is_one_clear_line(tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = {"--api": "127.0.0.1:0", "--dispatch": "127.0.0.1:0", flag: address}
        words = [word for pair in flags.items() for word in pair]
        command = [sys.executable, "-m", "shoal", "controller", "--data-dir", str(tmp_path), *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert address in done.stderr
    assert "Traceback" not in done.stderr
