"""Golden tests: 66 real Compose and stack files against what docker compose and docker stack make of them.

Rules: the corpus is read where it lies, next to the checkout or at SHOAL_COMPOSE_CORPUS, and copied nowhere. Every
normalisation is a function here that says why it is fair. A file that does not match stands in `DIFFERENT` with its
reason, and its test fails as soon as it matches.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.compose_files import DiskFiles
from cli.config import escape
from model.compose import ComposeError, Loaded, load_project
from model.compose.scalars import parse_bytes

CORPUS = Path(os.environ.get("SHOAL_COMPOSE_CORPUS") or Path(__file__).parents[2].parent / "shared" / "compose-corpus")
DIFFERENT: dict[str, str] = {}
"""File -> why our result differs from docker compose's golden one. Empty: all of them match."""
_LABEL = "the file's default holds a variable: docker stack leaves it standing, docker compose (and we) replace it"
DIFFERENT_STACK = {"BretFisher__dogvscat/stack-elk.yml": _LABEL, "BretFisher__dogvscat/stack-swarmprom.yml": _LABEL}
"""File -> why our services differ from docker stack's golden ones."""


def _rows() -> list[dict[str, str]]:
    manifest = CORPUS / "MANIFEST.tsv"
    if not manifest.exists():
        return []
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


ROWS = {row["file"]: row for row in _rows()}
needs_corpus = pytest.mark.skipif(not ROWS, reason="the corpus is not at hand (set SHOAL_COMPOSE_CORPUS)")


def _golden(file: str, kind: str) -> Path:
    return CORPUS / "canonical" / f"{file.replace('/', '__')}.{kind}"


BY_COMPOSE = [file for file in ROWS if _golden(file, "compose.json").exists()]
BY_STACK = [file for file in ROWS if _golden(file, "stack.yml").exists()]
STACK_ONLY = [file for file in BY_STACK if file not in BY_COMPOSE]
REFUSED = [file for file in ROWS if file not in BY_COMPOSE and file not in BY_STACK]


def _load(file: str, *, resolve_paths: bool = False) -> Loaded:
    # The golden files were made with no variables set, and those of compose with relative paths left as written.
    path = str(CORPUS / "files" / file)
    return load_project(DiskFiles(), [path], {"HOME": "/root"}, resolve_paths=resolve_paths)


def without_inner_extensions(value: Any, *, top: bool = True) -> Any:
    """docker compose's JSON drops `x-` keys below the top level; shoal keeps them, its autoscaling stands there."""
    if isinstance(value, dict):
        kept = ((key, item) for key, item in value.items() if top or not key.startswith("x-"))
        return {key: item if key.startswith("x-") else without_inner_extensions(item, top=False) for key, item in kept}
    return [without_inner_extensions(item, top=False) for item in value] if isinstance(value, list) else value


def _check(file: str, ours: Any, golden: Any, different: dict[str, str] = DIFFERENT) -> None:
    if file in different:
        assert ours != golden, f"{file} matches now: take it out of the table"
    else:
        assert ours == golden


@needs_corpus
@pytest.mark.parametrize("file", BY_COMPOSE)
def test_resolved_model_is_that_of_docker_compose(file: str) -> None:
    golden = json.loads(_golden(file, "compose.json").read_text())
    _check(file, escape(without_inner_extensions(_load(file).project)), golden)


@needs_corpus
@pytest.mark.parametrize("file", STACK_ONLY)
def test_templates_only_docker_stack_takes_load_with_warnings(file: str) -> None:
    loaded = _load(file, resolve_paths=True)
    assert any(warning.kind == "incomplete" for warning in loaded.warnings)
    _check(file, as_stack(loaded.project), stack_golden(file, loaded.project))


@needs_corpus
@pytest.mark.parametrize("file", [file for file in BY_STACK if file not in STACK_ONLY])
def test_services_are_those_of_docker_stack(file: str) -> None:
    loaded = _load(file, resolve_paths=True)
    ours, golden = as_stack(loaded.project)["services"], stack_golden(file, loaded.project)["services"]
    _check(file, ours, golden, DIFFERENT_STACK)


EXPECTED_FAULTS = {
    "codelibs__docker-fess/compose__compose-ollama.yaml": "services.ollama01.networks: networks has no 'search_net'",
    "open-telemetry__opentelemetry-demo/compose.yaml": "found ':/hostfs:ro', expected a volume",
    "open-telemetry__opentelemetry-demo/compose.agent.yaml": "services.agent.ports[0]: found '', expected a port",
    "thingsboard__thingsboard/docker__docker-compose.yml": "services.haproxy.container_name: found ''",
    "gianarb__orbiter/contrib__swarm__stack.yml": "services.micro.deploy.resources.restart_policy: unknown field",
    "gianarb__orbiter/vendor__github.com__docker__docker__cli__compose__loader__full-example.yml": "on_failure",
    "vegasbrianc__prometheus/docker-traefik-stack.yml": "services.grafana.env_file[0]: cannot read",
    "vegasbrianc__prometheus/docker-stack.yml": "services.grafana.env_file[0]: cannot read",
    "vegasbrianc__prometheus/docker-prometheus.dockerapp__docker-compose.yml": "services.grafana.env_file[0]: cannot",
}


@needs_corpus
@pytest.mark.parametrize("file", REFUSED)
def test_what_both_tools_refuse_is_refused_with_a_place(file: str) -> None:
    with pytest.raises(ComposeError) as caught:
        _load(file)
    lines = [line for line in caught.value.problems if EXPECTED_FAULTS[file] in line]
    assert lines, caught.value.problems
    assert f"{file}:" in lines[0]
    assert lines[0].split(f"{file}:")[1].split(":")[0].isdigit()


@needs_corpus
def test_every_file_of_the_corpus_is_compared() -> None:
    assert len(BY_COMPOSE) + len(STACK_ONLY) + len(REFUSED) == len(ROWS) == 66
    assert set(REFUSED) == set(EXPECTED_FAULTS)


def stack_golden(file: str, project: dict[str, Any]) -> dict[str, Any]:
    """docker stack's answer; unused resources go, as compose (and shoal) drop them."""
    text = _golden(file, "stack.yml").read_text()
    golden: dict[str, Any] = yaml.safe_load(text)
    del golden["version"]
    for section in ("networks", "volumes", "secrets", "configs"):
        defined = {key: value for key, value in (golden.pop(section, None) or {}).items() if key in project.get(section, {})}
        if defined:
            golden[section] = defined
    for service in golden["services"].values():
        _plain_stack_service(service)
    return golden


def _plain_stack_service(service: dict[str, Any]) -> None:
    service.pop("build", None)  # left as it is in the file there, and neither tool builds
    for port in service.get("ports", ()):
        port.setdefault("mode", "ingress")  # defaults that are not written out there in long forms
        port.setdefault("protocol", "tcp")
    for mount in service.get("volumes", ()):
        for key in ("source", "target"):
            if len(mount.get(key, "")) > 1:
                mount[key] = mount[key].rstrip("/")  # the same folder
    if "depends_on" in service:
        service["depends_on"].sort()  # a list there, in no order of meaning
    if "shm_size" in service:
        service["shm_size"] = str(parse_bytes(str(service["shm_size"])))  # left as written there


def as_stack(project: dict[str, Any]) -> dict[str, Any]:
    """Our model in docker stack's words. Both mean the same: it writes less out, and some things differently."""
    result = {key: value for key, value in project.items() if key.startswith("x-")}
    result["services"] = {name: _stack_service(service) for name, service in project["services"].items()}
    for section in ("networks", "volumes", "secrets", "configs"):
        defined = {
            key: _stack_resource(value, f"{project['name']}_{key}", key)
            for key, value in project.get(section, {}).items()
            if (section, key) != ("networks", "default") or value.get("driver")
        }
        if defined:
            result[section] = defined
    return result


def _stack_service(service: dict[str, Any]) -> dict[str, Any]:
    service = json.loads(json.dumps({key: value for key, value in service.items() if not key.startswith("x-")}))
    if service.get("networks") == {"default": None}:
        del service["networks"]  # docker stack adds the default network only when it deploys
    service.pop("build", None)
    for key in ("command", "entrypoint", "image"):
        if not service.get(key):
            service.pop(key, None)  # nothing said: docker stack leaves the field out
    if "deploy" in service:
        service["deploy"] = _stack_deploy(service["deploy"])
    for port in service.get("ports", ()):
        if "published" in port:
            port["published"] = int(port["published"])  # a number there, text here
    for secret in service.get("secrets", ()):
        if secret["target"] == f"/run/secrets/{secret['source']}":
            del secret["target"]  # a default written out
    for config in [*service.get("configs", ()), *service.get("secrets", ())]:
        if "mode" in config:
            config["mode"] = int(config["mode"], 8)  # a number there, octal text here
    if "extra_hosts" in service:
        service["extra_hosts"] = sorted(line.replace("=", ":", 1) for line in service["extra_hosts"])
    if "depends_on" in service:
        service["depends_on"] = sorted(service["depends_on"])  # a list there, without conditions
    service["volumes"] = [_stack_mount(mount) for mount in service.get("volumes", ())]
    return {key: value for key, value in service.items() if value != [] or key in ("command", "entrypoint")}


def _stack_deploy(deploy: dict[str, Any]) -> dict[str, Any]:
    for group in deploy.get("resources", {}).values():
        if "cpus" in group:
            group["cpus"] = str(group["cpus"])  # text there, a number here
    return {key: value for key, value in deploy.items() if value != {}}


def _stack_mount(mount: dict[str, Any]) -> dict[str, Any]:
    mount.get("bind", {}).pop("create_host_path", None)  # docker stack does not know the word
    if mount.get("source"):
        mount["source"] = mount["source"].replace(str(CORPUS / "files"), "/corpus")
    return {key: value for key, value in mount.items() if value not in ({}, "")}


def _stack_resource(value: dict[str, Any], default: str, key: str) -> dict[str, Any]:
    folder = str(CORPUS / "files")
    value = {name: item for name, item in value.items() if item != {} and (name, item) != ("name", default)}
    if "file" in value:
        value["file"] = value["file"].replace(folder, "/corpus")
    return value
