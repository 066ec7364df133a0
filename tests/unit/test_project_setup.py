"""The set-up: what deploy/setup.sh says of a machine, and what the lock files promise."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
TOOLS = ("sh", "sed", "tr", "grep", "xargs", "cat", "dirname", "sha256sum", "flock", "readlink")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout with deploy/ alone, on a machine whose PATH holds a few tools: no root, no python, no packages."""
    deploy = tmp_path / "checkout" / "deploy"
    deploy.mkdir(parents=True)
    for name in ("setup.sh", "debian-packages.txt"):
        shutil.copy(ROOT / "deploy" / name, deploy)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"this machine has no {tool}"
        (tmp_path / "bin" / tool).symlink_to(found)
    program(tmp_path, "id", "echo 1000")
    return tmp_path


def program(machine: Path, name: str, body: str) -> None:
    path = machine / "bin" / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def setup(machine: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    script = machine / "checkout" / "deploy" / "setup.sh"
    environment = {"PATH": str(machine / "bin"), "HOME": str(machine)}
    return subprocess.run(["sh", str(script), *words], env=environment, capture_output=True, text=True, timeout=30, check=False)


def test_without_dpkg_every_package_is_missing(machine: Path) -> None:
    listed = setup(machine, "missing").stdout.split()
    assert {"etcd-server", "conmon", "crun", "python3-venv"} <= set(listed)
    assert not [name for name in listed if name.startswith("#")]


def test_only_what_is_not_installed_is_missing(machine: Path) -> None:
    program(machine, "dpkg-query", "echo crun installed; echo conmon installed; echo runc config-files; exit 1")
    program(machine, "python3", f'exec {sys.executable} "$@"')
    listed = setup(machine, "missing").stdout.split()
    assert not {"crun", "conmon", "python3-venv"} & set(listed)
    assert {"runc", "etcd-server"} <= set(listed)


def test_without_root_it_says_what_stays_missing_and_what_it_needs(machine: Path) -> None:
    done = setup(machine)
    assert done.returncode == 1
    assert "not root, so these Debian packages stay missing" in done.stdout
    assert "crun" in done.stdout
    assert "needs Python 3.11 or newer with venv" in done.stderr


def test_an_unknown_word_is_one_clear_line(machine: Path) -> None:
    done = setup(machine, "mising")
    assert done.returncode == 1
    assert done.stderr == "setup: unknown word: mising (there is: missing)\n"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_names_no_place_and_pins_everything_by_hash(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"://|file:|--(index|extra-index|find-links)|\s/\w", text)
    entries = re.split(r"\n(?=[a-z])", text.strip())
    assert [entry.splitlines()[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize(("lock", "extras"), [("requirements.lock", ()), ("requirements-dev.lock", ("dev", "etcd3"))])
def test_a_lock_holds_what_the_project_asks_for(lock: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(row for extra in extras for row in project["optional-dependencies"][extra])]
    pinned = dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
    stale = []
    for row in map(Requirement, wanted):
        version = pinned.get(row.name.lower().replace("_", "-").replace(".", "-"), "")
        if not version or not row.specifier.contains(version, prereleases=True):
            stale.append(str(row))
    assert stale == [], "run: make lock"


def test_the_scripts_that_are_called_by_path_are_executable() -> None:
    for path in (ROOT / "deploy" / "stopped").iterdir():
        assert os.access(path, os.X_OK), path
