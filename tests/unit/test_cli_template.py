"""Go templates: what they print, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from cli.template import Template, formatted
from model.errors import BadInput

DATA: dict[str, Any] = {
    "Id": "sha256:1",
    "RepoTags": ["debian:8", "debian:latest"],
    "Size": 125_000_000,
    "Tty": False,
    "Config": {
        "Cmd": ["/bin/bash"], "Entrypoint": None, "Volumes": None, "Labels": {"b": "2", "a": "1"}, "User": "",
        "Env": ["A=1", "B=two words"],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("{{.Config.Cmd}}", "[/bin/bash]"),
        ("{{ .Id }} has {{.Size}}", "sha256:1 has 125000000"),
        ("{{.Tty}}", "false"),
        ("{{.Config.Labels}}", "map[a:1 b:2]"),
        ("{{.Config.Entrypoint}} {{.Config.Volumes}} {{.Config.ExposedPorts}}", "[] map[] map[]"),
        ("{{json .Config.Entrypoint}}", "null"),
        ("{{json .Config.Cmd}}", '["/bin/bash"]'),
        ("{{.Config.Labels.a}}", "1"),
        ('{{index .Config.Labels "b"}}{{index .RepoTags 1}}', "2debian:latest"),
        ("{{range .RepoTags}}{{println .}}{{end}}", "debian:8\ndebian:latest\n"),
        ("{{range $i, $tag := .RepoTags}}{{$i}}={{$tag}};{{end}}", "0=debian:8;1=debian:latest;"),
        ("{{range $key, $value := .Config.Labels}}{{$key}}{{$value}} {{end}}", "a1 b2 "),
        ("{{range .Config.Entrypoint}}x{{else}}none{{end}}", "none"),
        ("{{if .Config.User}}{{.Config.User}}{{else if .Tty}}tty{{else}}root{{end}}", "root"),
        ('{{with .Config}}{{join .Env ","}} {{$.Id}}{{end}}', "A=1,B=two words sha256:1"),
        ("{{len .RepoTags}} {{.RepoTags | len}}", "2 2"),
        ('{{if and (eq .Tty false) (ne .Id "x")}}yes{{end}}', "yes"),
        ('{{printf "%-4s|%q|%d" .Tty .Id 3}}', 'false|"sha256:1"|3'),
        ("{{.Id | upper | printf \"<%s>\"}}", "<SHA256:1>"),
        ("a {{- .Tty -}} b{{/* no */}}", "afalseb"),
        ("{{$x := .Size}}{{$x}}", "125000000"),
        ("{{(index .RepoTags 0) | upper}}", "DEBIAN:8"),
        ("plain", "plain"),
    ],
)  # fmt: skip
def test_values_are_printed_as_go_prints_them(text: str, printed: str) -> None:
    assert Template(text).render(DATA) == printed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{.Nothing}}", "no field 'Nothing'"),
        ("{{.Id.Deeper}}", "no field 'Deeper'"),
        ("{{nonsense .Id}}", "function 'nonsense'"),
        ("{{if .Tty}}x", "end is missing"),
        ("{{end}}", "without if"),
        ("{{.Id", "not closed"),
        ("{{}}", "says nothing"),
        ("{{range .Size}}{{end}}", "no list"),
        ("{{index .RepoTags 7}}", "index"),
        ("{{.Id .Size}}", "only functions"),
        ("{{(.Id}}", "bracket"),
        ("{{$no}}", "is not set"),
    ],
)
def test_what_is_not_understood_is_one_clear_line(text: str, why: str) -> None:
    with pytest.raises(BadInput, match="template") as caught:
        Template(text).render(DATA)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_listing_is_formatted_as_docker_formats_it() -> None:
    titles = {"Repository": "REPOSITORY", "Tag": "TAG"}
    rows = [{"Repository": "busybox", "Tag": "latest"}, {"Repository": "linuxtips/apache", "Tag": "1.0"}]
    assert formatted("{{.Repository}}:{{.Tag}}", titles, rows) == ["busybox:latest", "linuxtips/apache:1.0"]
    assert formatted("json", titles, rows[:1]) == ['{"Repository":"busybox","Tag":"latest"}']
    assert formatted(r"table {{.Repository}}\t{{.Tag}}", titles, rows) == [
        "REPOSITORY         TAG",
        "busybox            latest",
        "linuxtips/apache   1.0",
    ]
    assert formatted("table {{.Tag}}", titles, []) == ["TAG"]
