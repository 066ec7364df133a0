"""The agent's private mounts: what they hide, what they share, and what they leave alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root
UNIFIED = Path("/sys/fs/cgroup/unified")
_SCRIPT = """
import subprocess, sys
from pathlib import Path
from agent.runtime.mountns import enter_private_mounts
shared = Path(sys.argv[1])
enter_private_mounts([shared])
enter_private_mounts([shared])
print(sorted(p.name for p in Path("/sys/fs/cgroup/unified").iterdir()))
(shared / "mnt").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "x", str(shared / "mnt")], check=True)
(shared / "mnt/file").touch()
"""


@pytest.mark.skipif(not (UNIFIED / "cgroup.procs").exists(), reason="this machine's cgroup tree is not a hybrid one")
def test_only_the_agent_s_view_of_cgroups_changes_and_shared_mounts_outlive_it(tmp_path: Path) -> None:
    shared = tmp_path / "data"
    try:
        run = subprocess.run([sys.executable, "-c", _SCRIPT, str(shared)], capture_output=True, text=True, check=True)
        assert run.stdout == "[]\n"
        assert (UNIFIED / "cgroup.procs").exists()
        assert (shared / "mnt/file").exists(), "the next agent must see what this one mounted"
        table = Path("/proc/self/mountinfo").read_text()
        assert table.count(f" {shared} ") == 1, "made a mount point once, however many agents there were"
    finally:
        subprocess.run(["umount", "-R", str(shared)], check=False)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
