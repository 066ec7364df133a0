"""`shoal config` and how its files are found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from cli.compose_files import DiskFiles, find_files
from cli.config import config_command
from model.errors import BadInput

TEXT = "services: {b: {image: y}, a: {image: x, command: 'echo $$HOME', volumes: ['v:/v']}}\nvolumes: {v: }\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compose.yaml").write_text(TEXT)
    return tmp_path


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(config_command, list(arguments), input=stdin)


def test_yaml_and_json_say_the_same_and_load_again(folder: Path) -> None:
    text, data = run("-p", "n").stdout, run("-p", "n", "-o", "json").stdout
    assert yaml.safe_load(text) == json.loads(data)
    assert json.loads(data)["services"]["a"]["command"] == ["echo", "$$HOME"]
    (folder / "again.yaml").write_text(text)
    assert run("-f", "again.yaml").stdout == text


@pytest.mark.parametrize("value", ["0o17", "1e3", "22:22", "yes", "0440", "null", "", " x", "a: b", "#", "two\nlines\n", "é"])
def test_strange_text_survives_the_yaml_output(folder: Path, value: str) -> None:
    (folder / "compose.yaml").write_text(json.dumps({"services": {"a": {"image": "x", "environment": {"V": value}}}}))
    (folder / "again.yaml").write_text(run().stdout)
    assert json.loads(run("-f", "again.yaml", "-o", "json").stdout)["services"]["a"]["environment"]["V"] == value


def test_listings(folder: Path) -> None:
    assert run("--services").stdout == "a\nb\n"
    assert run("--images").stdout == "x\ny\n"
    assert run("--volumes").stdout == "v\n"
    assert run("--networks").stdout == "default\n"
    assert run("-q").output == ""


def test_problems_go_to_standard_error_one_a_line(folder: Path) -> None:
    (folder / "bad.yaml").write_text("services: {a: {imag: x, prts: 1}}")
    result = run("-f", "bad.yaml")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == ["shoal", "shoal"]
    assert f"{folder}/bad.yaml:1:22: services.a.imag" in result.stderr


def test_warnings_and_strict(folder: Path) -> None:
    (folder / "compose.override.yaml").write_text("services: {a: {build: ., uts: host}}")
    result = run()
    assert result.exit_code == 0
    assert result.stderr.count("unsupported:") == result.stderr.count("unsupported:services.a.uts") == 1
    assert run("--strict").exit_code == 1


def test_standard_input(folder: Path) -> None:
    assert run("-f", "-", "--services", stdin="services: {z: {image: x}}").stdout == "z\n"


def test_default_names_overrides_parents_and_variables(folder: Path) -> None:
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    main = str(folder / "compose.yaml")
    assert find_files((), {}, str(inner)) == [main]
    (folder / "compose.override.yml").touch()
    assert find_files((), {}, str(inner)) == [main, str(folder / "compose.override.yml")]
    assert find_files(("x.yaml", "-"), {}, str(inner)) == [str(inner / "x.yaml"), "-"]
    assert find_files((), {"COMPOSE_FILE": "x.yaml:y.yaml"}, str(inner)) == [str(inner / "x.yaml"), str(inner / "y.yaml")]
    with pytest.raises(BadInput, match="no Compose file in"):
        find_files((), {}, "/proc/self")


def test_what_is_no_file(folder: Path) -> None:
    with pytest.raises(OSError, match="not a file"):
        DiskFiles().read(str(folder))
    assert "cannot read" in run("-f", "nope.yaml").stderr
    assert "it is not a file" in run("-f", str(folder)).stderr


def test_the_command_module_loads_nothing_heavy() -> None:
    heavy = ("yaml", "pydantic", "grpc", "asyncio", "model.compose")
    code = f"import sys, cli.config; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == "[]\n"
