"""Reading YAML: 1.2 rules, places, and limits that hold before anything is built."""

from __future__ import annotations

import math
from time import process_time
from typing import Any

import pytest

from model.compose.problems import Mark, Report
from model.compose.tree import Map, Tagged
from model.compose.yamlread import read_yaml, resolve_plain
from tests.compose_files import faults, load


def read(text: str | bytes) -> Any:
    report = Report()
    documents = read_yaml(text if isinstance(text, bytes) else text.encode(), "f", report)
    assert not report.problems, report.problems
    return documents[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("Null", None),
        ("0o17", 15),
        ("0440", 288),
        ("0", 0),
        ("089", 89),
        ("0x1F", 31),
        ("0b11", 3),
        ("-5", -5),
        ("1_000", 1000),
        ("1.50", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        (".inf", math.inf),
        ("1.2.3", "1.2.3"),
        ("2001-01-01", "2001-01-01"),
        ("0xZZ", "0xZZ"),
        ("+", "+"),
        ("-", "-"),
        (".", "."),
        ("<<", "<<"),
        ("12e", "12e"),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    assert resolve_plain(text) == value
    assert type(resolve_plain(text)) is type(value)


def test_quotes_make_text() -> None:
    assert read("a: '1'\nb: \"true\"\nc: !!str 5\nd: !!int '5'") == {"a": "1", "b": "true", "c": "5", "d": 5}


def test_values_know_their_place() -> None:
    document = read("a: 1\nb:\n  - x\n  - c: y\n")
    assert document.at("a") == Mark("f", 1, 4)
    assert document["b"].at(1) == Mark("f", 4, 5)
    assert document["b"][1].at("c") == Mark("f", 4, 8)


def test_merge_keys_yield_to_own_keys_and_to_earlier_ones() -> None:
    document = read("a: &a {k: 1, l: 1}\nb: &b {k: 2, m: 2}\nc: {<<: [*a, *b], l: own}\nd: {l: own, <<: *b}")
    assert document["c"] == {"l": "own", "k": 1, "m": 2}
    assert document["d"] == {"l": "own", "k": 2, "m": 2}


def test_a_quoted_merge_key_is_a_plain_key() -> None:
    assert read("a: {'<<': {k: 1}}") == {"a": {"<<": {"k": 1}}}


def test_reset_and_override_are_kept_as_tags() -> None:
    document = read("a: !reset null\nb: !override [1]\n")
    assert document == Map([("a", Tagged("reset", None)), ("b", Tagged("override", [1]))])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", "f:3:1: the key 'a' is already there in line 1"),
        ("x: &x {k: 1}\na: {<<: *x, <<: *x}", "'<<' stands twice"),
        ("a: {<<: 5}", "'<<' holds the number 5, expected a mapping"),
        ("1: a", "f:1:1: the key the number 1 is no text"),
        ("a: *b", "f:1:4: alias *b has no anchor &b before it"),
        ("a: &a [*a]", "alias *a has no anchor"),
        ("a: !secret x", "unknown tag '!secret'"),
        ("a: b: c", "f:1:5: is not YAML"),
        ("\ta: b", "is not YAML"),
        ("- a", "holds a list at the top"),
        ('a: "\x00"', "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"a: \xc3\x28", "is not YAML"),
    ],
)
def test_faults_of_the_text_name_their_place(text: str | bytes, expected: str) -> None:
    report = Report()
    read_yaml(text if isinstance(text, bytes) else text.encode(), "f", report)
    assert any(expected in str(problem) for problem in report.problems), report.problems


def test_all_duplicate_keys_are_reported() -> None:
    lines = faults("services:\n  a: {image: x, image: y}\n  b: {image: x, tty: true, tty: false}\n")
    assert [line.split(": ", 1)[1] for line in lines[:2]] == [
        "the key 'image' is already there in line 2",
        "the key 'tty' is already there in line 3",
    ]


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
MERGES = "x0: &a0 {k: v}\n" + "".join(f"x{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}], k{i}: 1}}\n" for i in range(1, 25))
BOMBS = {
    "flow lists": ("a: " + "[" * 100_000, "nested deeper than 100"),
    "flow mappings": ("{a: " * 100_000, "nested deeper than 100"),
    "block lists": ("x: \n" + "- " * 100_000, "nested deeper than 100"),
    "block keys": ("? " * 100_000, "nested deeper than 100"),
    "aliases": (LAUGHS, "holds more than 100000 values"),
    "merges": (MERGES, "holds more than 100000 values"),
    "wide merges": (
        "x: &b {" + ",".join(f"k{i}: 1" for i in range(3000)) + "}\nl:\n" + "- {<<: *b}\n" * 3000,
        "holds more than 100000 values",
    ),
    "50 MB": ("services:\n" + "  a: {image: x}\n" * 3_300_000, "is larger than 4 MiB"),
    "many values": ("services:\n" + "".join(f"  a{i}: {{image: x}}\n" for i in range(150_000)), "holds more than 100000"),
    "many variables": ("services: {a: {image: '" + "$A" * 1_000_000 + "'}}", "uses more than 20000 variables"),
    "open braces": ("services: {a: {image: '" + "${A" * 15_000 + "'}}", "has no closing brace"),
    "nested defaults": ("services: {a: {image: '" + "${A:-" * 30 + "}" * 30 + "'}}", "nested deeper than 20"),
    "port range": ("services: {a: {image: x, ports: ['1-65535:1-65535']}}", "at most 2000 ports"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_a_clear_error_in_under_a_second(name: str) -> None:
    text, expected = BOMBS[name]
    began = process_time()
    lines = faults(text)
    assert process_time() - began < 1.0
    assert len(lines) == 1
    assert expected in lines[0]
    assert lines[0].startswith("/p/compose.yaml")


def test_a_file_of_200_services_loads_in_under_a_second() -> None:
    one = """  web%d:
    image: registry.local/team/app:1.%d
    command: ["serve", "--port", "8080"]
    environment: {A: "${TAG:-1}", B: "2"}
    ports: ["%d:8080"]
    volumes: ["data:/data", "/etc/x:/etc/x:ro"]
    networks: [front, back]
    healthcheck: {test: ["CMD", "true"], interval: 10s}
    deploy: {replicas: 3, resources: {limits: {cpus: "0.5", memory: 128M}}}
"""
    text = "services:\n" + "".join(one % (i, i, 8000 + i) for i in range(200))
    began = process_time()
    loaded = load(text + "networks: {front: , back: }\nvolumes: {data: }\n")
    assert process_time() - began < 1.0
    assert len(loaded.project["services"]) == 200
