"""Whole projects: several files, extends, include, profiles, names, environment, references."""

from __future__ import annotations

from typing import Any

import pytest

from model.compose import ComposeError, load_project, validate_resolved
from tests.compose_files import MemoryFiles, faults, ids, load


def test_defaults_are_written_out() -> None:
    assert load("services: {a: {image: x}}").project == {
        "name": "p",
        "networks": {"default": {"name": "p_default", "ipam": {}}},
        "services": {"a": {"image": "x", "command": None, "entrypoint": None, "networks": {"default": None}}},
    }


def test_later_files_lie_on_earlier_ones() -> None:
    base = "services: {a: {image: x, command: [a], environment: {A: '1', B: '1'}, ports: ['1:1'], cap_add: [A]}}"
    over = "services: {a: {command: [b], environment: [B=2], ports: ['2:2', '1:1'], cap_add: [A, B]}, b: {image: y}}"
    services = load(base, over).project["services"]
    assert services["a"]["command"] == ["b"]
    assert services["a"]["environment"] == {"A": "1", "B": "2"}
    assert [port["target"] for port in services["a"]["ports"]] == [1, 2]
    assert services["a"]["cap_add"] == ["A", "B"]
    assert services["b"]["image"] == "y"


def test_reset_takes_away_and_override_replaces() -> None:
    base = "services: {a: {image: x, ports: ['1:1'], environment: {A: '1', B: '2'}, restart: always}, b: {image: y}}"
    over = "services: {a: {ports: !override ['2:2'], environment: {A: !reset null}, restart: !reset null}, b: !reset null}"
    services = load(base, over).project["services"]
    assert list(services) == ["a"]
    assert [port["target"] for port in services["a"]["ports"]] == [2]
    assert services["a"]["environment"] == {"B": "2"}
    assert "restart" not in services["a"]


def test_extends_in_the_same_and_in_another_file() -> None:
    main = "services: {a: {extends: b, user: a}, b: {extends: {file: sub/base.yaml, service: c}, environment: {B: '1'}}}"
    base = "services: {c: {image: 'i:$TAG', environment: {C: '1'}, volumes: ['./d:/d'], env_file: e.env}}"
    loaded = load(main, files={"/p/sub/base.yaml": base, "/p/sub/e.env": "E=1\n"}, env={"TAG": "7"})
    found = loaded.project["services"]["a"]
    assert (found["image"], found["user"]) == ("i:7", "a")
    assert found["environment"] == {"B": "1", "C": "1", "E": "1"}
    assert found["volumes"][0]["source"] == "/p/sub/d"
    assert loaded.sources == ("/p/compose.yaml", "/p/sub/base.yaml", "/p/sub/e.env")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("services: {a: {extends: b}, b: {extends: a}}", "services.a.extends: goes round in a circle or too deep: a -> b -> a"),
        ("services: {a: {extends: bb}, b: {image: x}}", "found 'bb', expected a service of this file"),
        ("services: {a: {extends: {file: no.yaml, service: b}}}", "cannot read /p/no.yaml: No such file or directory"),
        ("services: {a: {extends: {file: other.yaml, service: b}}}", "/p/other.yaml has no service 'b'"),
        ("services: {a: {extends: {file: compose.yaml, service: a}}}", "goes round in a circle"),
        ("include: [compose.yaml]", "goes round in a circle or too deep: /p/compose.yaml -> /p/compose.yaml"),
        ('include: ["a\\n\\eb"]', r"cannot read /p/a\n\x1bb: No such file or directory"),
        ("include: [no.yaml]", "cannot read /p/no.yaml"),
        ("include: [other.yaml]\nservices: {o: {image: mine}}", "services.o: is defined here and differently in an included"),
    ],
)
def test_faults_of_links_between_files(text: str, expected: str) -> None:
    lines = faults(text, files={"/p/other.yaml": "services: {o: {image: x}}"})
    assert any(expected in line for line in lines), lines


def test_include_has_its_own_folder_and_variables() -> None:
    inner = "services: {w: {image: 'w:$IN', volumes: ['./d:/d'], networks: [n]}}\nnetworks: {n: }"
    files = {"/p/sub/inner.yaml": inner, "/p/sub/.env": "IN=inner\n"}
    loaded = load("include: [sub/inner.yaml]\nservices: {a: {image: x, depends_on: [w]}}", files=files)
    found = loaded.project["services"]["w"]
    assert found["image"] == "w:inner"
    assert found["volumes"][0]["source"] == "/p/sub/d"
    assert loaded.project["networks"]["n"]["name"] == "p_n"


def test_profiles_choose_services_and_what_nobody_uses_goes() -> None:
    text = "services: {a: {image: x}, b: {image: y, profiles: [q], volumes: ['v:/v']}}\nvolumes: {v: , w: }"
    assert list(load(text).project["services"]) == ["a"]
    assert "volumes" not in load(text).project
    assert list(load(text, profiles=["q"]).project["services"]) == ["a", "b"]
    assert list(load(text, env={"COMPOSE_PROFILES": "r,q"}).project["volumes"]) == ["v"]
    assert list(load(text, profiles=["*"]).project["services"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "env", "options", "name"),
    [
        ("services: {}", {}, {}, "p"),
        ("name: n$X", {"X": "1"}, {}, "n1"),
        ("name: n", {"COMPOSE_PROJECT_NAME": "e"}, {}, "e"),
        ("name: n", {"COMPOSE_PROJECT_NAME": "e"}, {"project_name": "o"}, "o"),
        ("services: {}", {}, {"project_dir": "/x/My_App.2"}, "my_app2"),
    ],
)
def test_the_name_of_a_project(text: str, env: dict[str, str], options: dict[str, Any], name: str) -> None:
    assert load(text, env=env, **options).project["name"] == name


def test_a_bad_project_name_is_refused() -> None:
    assert "project name 'A b'" in faults("services: {}", project_name="A b")[0]


def test_dotenv_gives_variables_and_the_environment_wins() -> None:
    files = {"/p/.env": "A=file\nB=file\n", "/p/other.env": "A=other\n"}
    text = "services: {a: {image: 'x:$A-$B', environment: [A]}}"
    found = load(text, files=files, env={"A": "env"}).project["services"]["a"]
    assert (found["image"], found["environment"]) == ("x:env-file", {"A": "env"})
    loaded = load(text, files=files, env_files=["/p/other.env"])
    assert loaded.project["services"]["a"]["image"] == "x:other-"
    assert ids(loaded) == ["unset-variable:B"]


UNUSABLE = """services:
  a:
    image: Busy Box
    deploy:
      placement:
        constraints: [node.role==worker, node.rol==x]
        preferences: [{spread: zone}]
      update_config: {failure_action: rollback}
"""


def test_what_cannot_be_started_or_placed_is_told_with_its_line() -> None:
    loaded = load(UNUSABLE)
    assert ids(loaded) == [
        "unusable:services.a.image",
        "unusable:services.a.deploy.placement.constraints[1]",
        "unusable:services.a.deploy.placement.preferences[0].spread",
        "unsupported:services.a.deploy.update_config.failure_action",
    ]
    assert [warning.mark.line for warning in loaded.warnings][:3] == [3, 6, 7]
    assert "unknown key 'node.rol'" in str(loaded.warnings[1])
    problems = [str(problem) for problem in validate_resolved(loaded.project)]
    assert len(problems) == 3, "what is to be applied must be right"


def test_env_files_lie_under_the_environment() -> None:
    text = "services: {a: {image: x, env_file: [one.env, {path: two.env, required: false}], environment: {B: own}}}"
    found = load(text, files={"/p/one.env": "A=1\nB=2\n"}).project["services"]["a"]
    assert found["environment"] == {"A": "1", "B": "own"}
    assert "env_file" not in found
    assert "services.a.env_file[0]: cannot read /p/one.env" in faults(text)[0]


def test_unset_variables_are_warned_of_once() -> None:
    loaded = load("services: {a: {image: 'x$NO', hostname: '$NO', user: '${OK:-u}'}}")
    assert ids(loaded) == ["unset-variable:NO"]
    assert "services.a.image takes it as empty" in loaded.warnings[0].message


def test_a_template_with_empty_fields_loads_with_a_warning_and_is_refused_when_strict() -> None:
    text = "services: {a: {image: '$NO', volumes: [{type: '$NO', source: /x, target: /y}]}}"
    assert "incomplete:services.a.image" in ids(load(text))
    assert "incomplete:services.a.volumes[0].type" in ids(load(text))
    assert any("incomplete:services.a.image" in line for line in faults(text, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: {image: x, networks: [frnt]}", "1:37: services.a.networks: networks has no 'frnt' (did you mean 'front'?)"),
        ("a: {image: x, volumes: ['v:/v']}", "services.a.volumes: volumes has no 'v'"),
        ("a: {image: x, secrets: [s]}", "services.a.secrets: secrets has no 's'"),
        ("a: {image: x, configs: [{source: c}]}", "services.a.configs: configs has no 'c'"),
        ("a: {image: x, depends_on: [bb]}, b: {image: y}", "services.a.depends_on.bb: 'bb' is no service"),
        ("a: {image: x, depends_on: [b]}, b: {image: y, profiles: [q]}", "'b' is in a profile that is not chosen"),
        ("a: {image: x, depends_on: [b]}, b: {image: y, depends_on: [a]}", "in a circle: a -> b -> a"),
        ("a: {image: x, networks: [front], network_mode: host}", "services.a.network_mode: cannot stand beside 'networks'"),
        ("a: {image: x, mem_limit: 1g, deploy: {resources: {limits: {memory: 2g}}}}", "services.a.mem_limit: found"),
        ("a: {image: x, scale: 1, deploy: {replicas: 2}}", "services.a.scale: found 1, but deploy.replicas says 2"),
        ("a: {hostname: x}", "services.a.image: names no image"),
        ("a: {image: x, volumes: ['/x:/t'], tmpfs: /t}", "/t is already mounted by services.a.volumes[0]"),
        ("a: {image: x, tmpfs: t}", "the target 't' is no absolute path"),
        ("a: ", "services.a: found nothing, expected a mapping"),
        ("'a b': {image: x}", "may hold only letters, digits and ._-"),
    ],
)
def test_what_does_not_fit_together(text: str, expected: str) -> None:
    lines = faults(f"services: {{{text}}}\nnetworks: {{front: }}")
    assert any(expected in line for line in lines), lines


def test_long_circles_and_chains_need_no_recursion() -> None:
    services = "".join(f"  a{i}: {{image: x, depends_on: [a{i + 1}]}}\n" for i in range(3000))
    assert len(load(f"services:\n{services}  a3000: {{image: x}}\n").project["services"]) == 3001
    assert "in a circle" in faults(f"services:\n{services}  a3000: {{image: x, depends_on: [a0]}}\n")[0]


def test_external_things_keep_their_names() -> None:
    text = (
        "services: {a: {image: x, networks: [n, o], volumes: ['v:/v']}}\n"
        "networks: {n: {external: true}, o: {external: {name: old}}}\nvolumes: {v: {name: mine}}"
    )
    project = load(text).project
    assert project["networks"]["n"] == {"external": True, "name": "n", "ipam": {}}
    assert project["networks"]["o"]["name"] == "old"
    assert project["volumes"]["v"] == {"name": "mine"}


def test_no_file_is_a_clear_error() -> None:
    with pytest.raises(ComposeError) as caught:
        load_project(MemoryFiles({}), ["/p/compose.yaml"], {})
    assert str(caught.value) == "cannot read /p/compose.yaml: No such file or directory"
    assert faults("") == ["/p/compose.yaml: is empty, expected a mapping with 'services'"]


def test_the_error_is_one_line_and_holds_all_problems() -> None:
    with pytest.raises(ComposeError) as caught:
        load("services: {a: {imag: x, prts: []}}")
    assert str(caught.value).endswith("(and 1 more)")
    assert len(caught.value.problems) == len(caught.value.faults) == 2
    assert caught.value.faults[0].mark.line == 1
    assert caught.value.status == 400
