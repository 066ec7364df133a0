"""What always holds of the loader, whatever the file."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cli.config import escape, render
from model.codec import decode, encode
from model.compose import ComposeError, scalars, validate_resolved
from model.compose.convert import to_stack
from model.compose.fields import SERVICE, TOP
from model.compose.interpolate import BadTemplate, Interpolator
from model.spec import StackSpec
from tests.compose_files import load

junk = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["1m", "80:80", "a=b"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
service_junk = st.dictionaries(st.sampled_from([*SERVICE.fields, "x-a", "typo"]), junk, max_size=5)
file_junk = st.dictionaries(
    st.sampled_from([*TOP.fields, "x-a"]),
    st.one_of(junk, st.dictionaries(st.sampled_from(["a", "b"]), st.one_of(service_junk, junk), max_size=2)),
    max_size=4,
)


def problems(text: str | bytes) -> tuple[str, ...]:
    """What is wrong with a file; anything but a ComposeError fails the test."""
    try:
        load(text)
    except ComposeError as error:
        return error.problems or ("nothing said",)
    return ()


@given(file_junk)
@settings(max_examples=300, deadline=None)
def test_any_values_load_or_give_one_line_problems(data: dict[str, Any]) -> None:
    assert all(line and "\n" not in line and line != "nothing said" for line in problems(json.dumps(data)))


@given(st.one_of(st.text(max_size=60), st.text("{}[]:-*&<!|>'\"# \nab", max_size=60)))
@settings(max_examples=300, deadline=None)
def test_any_text_loads_or_gives_one_line_problems(text: str) -> None:
    assert all(line and "\n" not in line for line in problems(text.encode("utf-8", "surrogatepass")))


@given(st.one_of(junk, file_junk))
@settings(max_examples=300, deadline=None)
def test_validate_resolved_judges_anything(data: Any) -> None:
    assert isinstance(validate_resolved(data), tuple)


word = st.text("abcxyz019 $-_./:=#'\"", min_size=1, max_size=10)
pairs = st.dictionaries(st.text("ABC", min_size=1, max_size=3), word, max_size=3)
any_service: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"image": st.just("app:1")},
    optional={
        "command": st.lists(word, max_size=3),
        "environment": pairs,
        "labels": pairs,
        "hostname": word,
        "ports": st.lists(st.integers(1, 9000), max_size=3, unique=True),
        "stop_grace_period": st.sampled_from(["1s", "1m30s", "250ms"]),
        "volumes": st.just(["data:/d", "/etc:/e:ro"]),
        "networks": st.sampled_from([["front"], {"front": {"aliases": ["x"]}, "default": None}]),
        "deploy": st.fixed_dictionaries(
            {},
            optional={
                "replicas": st.integers(0, 99),
                "mode": st.sampled_from(["replicated", "global"]),
                "resources": st.just({"limits": {"cpus": "0.5", "memory": "64M"}}),
                "labels": pairs,
            },
        ),
        "x-autoscale": st.just({"min": 1, "max": 9, "mode": "off"}),
    },
)
good_service = any_service.filter(lambda row: "x-autoscale" not in row or row.get("deploy", {}).get("mode") != "global")
good_file = st.dictionaries(st.sampled_from("abcd"), good_service, min_size=1).map(
    lambda services: json.dumps(
        escape({"services": services, "networks": {"front": None}, "volumes": {"data": {}}, "x-top": "$"})
    )
)


@given(good_file, st.sampled_from(["yaml", "json"]))
@settings(max_examples=150, deadline=None)
def test_what_is_printed_loads_to_the_same_project(text: str, output: str) -> None:
    project = load(text).project
    assert load(render(project, output)).project == project


@given(good_file)
@settings(max_examples=100, deadline=None)
def test_a_file_laid_over_itself_changes_nothing_but_plain_lists(text: str) -> None:
    assert load(text, text).project == load(text).project


@given(good_file)
@settings(max_examples=100, deadline=None)
def test_a_loaded_project_is_valid_and_converts_and_travels(text: str) -> None:
    project = load(text).project
    assert validate_resolved(project) == ()
    stack = to_stack(project, stack="s")
    assert decode(StackSpec, encode(stack)) == stack
    assert to_stack(json.loads(json.dumps(project)), stack="s") == stack
    assert [service.name for service in stack.services] == sorted(f"s_{name}" for name in project["services"])


@given(st.integers(-(10**17), 10**17))
def test_durations_come_back(nanoseconds: int) -> None:
    assert scalars.parse_duration_ns(scalars.format_duration(nanoseconds)) == nanoseconds


@given(st.text("a${}:-?+$ B", max_size=30), st.dictionaries(st.sampled_from("aB"), st.text("xy$", max_size=3)))
def test_variables_substitute_or_say_why_not(template: str, env: dict[str, str]) -> None:
    with suppress(BadTemplate):
        result = Interpolator(env).text(template)
        assert result == template or "$" in template


@given(st.text(max_size=30))
def test_escaped_text_is_never_substituted(text: str) -> None:
    assert Interpolator({}).text(text.replace("$", "$$")) == text
