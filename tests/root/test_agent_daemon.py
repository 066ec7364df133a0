"""The whole agent with real containers: started, killed, cut off, on a full disk, and gone without a trace.

Rules: the daemon and its containers live in namespaces of their own that end with the driver; cgroups, the only thing outside,
are removed here whatever happens.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
needed = [name for name in ("conmon", "crun", "busybox", "catatonit", "unshare", "ip") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(bool(needed), reason=f"not installed: {', '.join(needed)}"),
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    work = tmp_path_factory.mktemp("agent-daemon")
    cgroup = f"shoal-test-agent-{os.getpid()}"
    words = [
        "unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
        sys.executable, "-m", "tests.root.agent_daemon_driver", str(work), cgroup,
    ]  # fmt: skip
    try:
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100 * PATIENCE, check=False)
        log = (work / "agent.log").read_text() if (work / "agent.log").exists() else ""
        assert result.returncode == 0, f"{result.stdout}\n{result.stderr[-3000:]}\n{log[-3000:]}"
        found = json.loads(result.stdout.splitlines()[-1])
        found["cgroups_left"] = [str(path) for path in _cgroups(cgroup)]
        yield found
    finally:
        for path in _cgroups(cgroup):
            path.rmdir()


def _cgroups(name: str) -> list[Path]:
    """Every cgroup of the test, deepest first."""
    found = [path for top in Path("/sys/fs/cgroup").glob(f"**/{name}") for path in (top, *top.glob("**/")) if path.is_dir()]
    return sorted(set(found), key=lambda path: -len(path.parts))


def test_replicas_run_with_their_volumes(seen: dict[str, Any]) -> None:
    assert seen["exec"] == ["seed", 0]
    assert seen["exec_missing"] == 127


def test_a_killed_container_is_back_in_under_two_seconds_with_its_address(seen: dict[str, Any]) -> None:
    assert seen["back_s"] < 2.0 * PATIENCE
    assert seen["same_address"]
    assert seen["new_container"]


def test_a_killed_agent_takes_every_container_over(seen: dict[str, Any]) -> None:
    assert seen["adopted"] == [[1, "running", 1], *([slot, "running", 0] for slot in range(2, 7))]
    assert seen["same_pids"]


def test_no_exit_code_is_lost_while_the_agent_is_away(seen: dict[str, Any]) -> None:
    assert seen["exit_code_meanwhile"] == 137


def test_networks_change_while_a_container_runs(seen: dict[str, Any]) -> None:
    assert seen["rewired_links"] == ["lo", "eth0", "eth1"]
    assert seen["rewired_back"] == ["lo", "eth0"]
    assert [seen[f"rewired_{name}"] for name in ("kept", "hosts", "adopted", "same_container")] == [True] * 4


def test_a_published_port_answers_under_its_number_also_after_a_restart_of_the_agent(seen: dict[str, Any]) -> None:
    assert (seen["published_answer"], seen["published_again"]) == ("hello", "hello")
    assert seen["published_same"]


def test_every_failure_says_why_in_one_line_with_its_code(seen: dict[str, Any]) -> None:
    state, code, message = zip(*(seen["failures"][name] for name in ("oom", "command", "image", "code")), strict=True)
    assert state == ("failed", "rejected", "rejected", "failed")
    assert code == (137, 127, None, 3)
    assert "out of memory" in message[0]
    assert '"nope"' in message[1]
    assert "127.0.0.1:1/none:1" in message[2]
    assert "code 3" in message[3]
    assert not [line for line in message if "\n" in line]


def test_a_full_disk_is_named_and_got_over(seen: dict[str, Any]) -> None:
    assert "disk full" in seen["full_disk"]
    assert seen["part"] == "done"


def test_a_removed_node_leaves_nothing(seen: dict[str, Any]) -> None:
    assert seen["exit"] == 0
    left = {name: value for name, value in seen.items() if name.endswith("_left") and value}
    assert left == {}
