"""The lab's machines: namespaces (network, mount, process, host name) and a cgroup, an init and one supervised daemon.

Rules: a machine is what runs in its cgroup; power off is SIGKILL to all of it. The daemon is the ordinary one with its ordinary
flags; a three-line shell loop starts it again when it dies, as systemd does on a real machine, and ends when it exits with 0.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab import cgroups, underlay
from lab.layout import LabPaths, LabRecord, MachineRecord, quote
from model.errors import RuntimeFailed

HELPER = "helper"
_NEEDED = ("nsenter", "unshare", "catatonit", "conmon", "crun", "etcd", "docker-registry")


def check_host() -> None:
    """Raises RuntimeFailed when the machine cannot carry a lab: not root, or programs are missing."""
    if os.geteuid() != 0:
        raise RuntimeFailed("a lab needs root (namespaces and cgroups): run it as root")
    missing = [name for name in _NEEDED if shutil.which(name, path=search_path()) is None]
    if missing:
        raise RuntimeFailed(f"missing programs: {', '.join(missing)}: run `make setup`")


def search_path() -> str:
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def power_on(record: LabRecord, machine: MachineRecord, paths: LabPaths, command: Sequence[str]) -> None:
    """Start the machine with `command` as its daemon. It must be off."""
    state, run = paths.machine_state(machine.name), paths.machine_run(machine.name)
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    run.mkdir(parents=True, exist_ok=True, mode=0o700)
    cgroups.make(f"{paths.cgroup}/{machine.name}", machine.cpus, machine.memory_bytes)
    underlay.plug(record, machine, paths)
    script = run / "daemon.sh"
    script.write_text(_daemon_script(command))
    script.chmod(0o700)
    _begin(_boot_script(machine, paths, script), paths.log(machine.name))


def _begin(script: str, log_file: Path) -> None:
    """A shell of its own that nobody waits for; what it says goes to the log."""
    with log_file.open("ab") as log:
        subprocess.Popen(
            ["sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env=_environment(),
        )


def _environment() -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name in ("LANG", "HOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    }
    return kept | {"PATH": search_path(), "PYTHONUNBUFFERED": "1"}


def _daemon_script(command: Sequence[str]) -> str:
    return f"#!/bin/sh\nuntil {quote(command)}; do sleep 0.2; done\n"


def _boot_script(machine: MachineRecord, paths: LabPaths, script: Path) -> str:
    inner = f"hostname {machine.name}; exec catatonit -- sh {quote([str(script)])}"
    enter = ["nsenter", f"--net={paths.netns(machine.name)}"]
    enter += ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
    join = cgroups.join_script(f"{paths.cgroup}/{machine.name}")
    return f"{join}\nexec {quote([*enter, 'sh', '-c', inner])}\n"


def power_off(record: LabRecord, machine: MachineRecord, paths: LabPaths) -> None:
    """Everything on the machine dies at once, its memory and network with it; its disk stays."""
    path = f"{paths.cgroup}/{machine.name}"
    cgroups.kill_all(path)
    cgroups.remove(path)
    underlay.unplug(record.name, machine.host, paths.netns(machine.name))
    shutil.rmtree(paths.machine_run(machine.name), ignore_errors=True)


def start_helper(paths: LabPaths, command: Sequence[str]) -> None:
    """The lab's own process on the host, for as long as the lab is up: it stands in the lab's cgroup and ends with it."""
    paths.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    cgroups.make(f"{paths.cgroup}/{HELPER}", 0.0, 0)
    script = paths.run / f"{HELPER}.sh"
    script.write_text(_daemon_script(command))
    _begin(f"{cgroups.join_script(f'{paths.cgroup}/{HELPER}')}\nexec sh {quote([str(script)])}\n", paths.log(HELPER))


def init_pid(paths: LabPaths, machine: str) -> int:
    """Process number (on the host) of the machine's first process; RuntimeFailed when it is off."""
    for pid in cgroups.processes(f"{paths.cgroup}/{machine}/daemons"):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
        if len(numbers) > 1 and numbers[-1] == "1":
            return pid
    raise RuntimeFailed(f"{machine} is off: start it with `shoal lab start {machine}`")


def enter_command(paths: LabPaths, machine: str, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` on the machine."""
    return ["nsenter", f"--target={init_pid(paths, machine)}", "--mount", "--net", "--pid", "--uts", "--", *command]
