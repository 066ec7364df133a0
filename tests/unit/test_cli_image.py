"""The words of `shoal image`: rows, filters, sizes, ages, what pulls and removals tell."""

from __future__ import annotations

import datetime as dt
import os
import pty
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from cli import image_words as words
from cli.container import VERBS, container_command
from cli.main import COMMANDS, main
from model.errors import BadInput

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
APACHE: dict[str, Any] = {
    "id": "sha256:" + "a" * 64,
    "names": {"linuxtips/apache:1.0": ["n1", "n2"], "localhost:5000/apache:latest": ["n1"]},
    "digests": {"linuxtips/apache:1.0": "sha256:" + "d" * 64},
    "nodes": ["n1", "n2"],
    "created": "2026-11-01T12:00:00Z",
    "size_bytes": 125_400_000,
}
NAMELESS = APACHE | {"id": "sha256:" + "b" * 64, "names": {}, "digests": {}}


def listed(name: str = "", *filters: str) -> list[str]:
    return [f"{row['repository']}:{row['tag']}" for row in words.matching(words.rows_of([APACHE, NAMELESS]), name, filters)]


def test_an_image_is_a_row_for_each_name() -> None:
    first, second, third = words.rows_of([APACHE, NAMELESS])
    assert (first["repository"], first["tag"], first["nodes"]) == ("linuxtips/apache", "1.0", ["n1", "n2"])
    assert first["digest"] == "sha256:" + "d" * 64
    assert (second["repository"], second["tag"], second["digest"]) == ("localhost:5000/apache", "latest", "<none>")
    assert (third["repository"], third["tag"], third["nodes"]) == ("<none>", "<none>", ["n1", "n2"])
    (pinned,) = words.rows_of([APACHE | {"names": {"busybox@sha256:" + "e" * 64: ["n1"]}}])
    assert (pinned["repository"], pinned["tag"], pinned["digest"]) == ("busybox", "<none>", "sha256:" + "e" * 64)


@pytest.mark.parametrize(
    ("name", "filters", "found"),
    [
        ("", (), 3),
        ("ps", (), 0),
        ("linuxtips/apache", (), 1),
        ("linuxtips/apache:1.0", (), 1),
        ("linuxtips/apache:2", (), 0),
        ("linuxtips/*", (), 1),
        ("apache", (), 0),
        ("*", (), 0),
        ("*/apache", (), 2),
        ("", ("dangling=true",), 1),
        ("", ("dangling=false",), 2),
        ("", ("reference=*/a*:latest", "reference=nothing"), 1),
        ("", ("reference=localhost:500[0-3]/*",), 1),
    ],
)
def test_names_and_filters_are_dockers(name: str, filters: tuple[str, ...], found: int) -> None:
    assert len(listed(name, *filters)) == found


@pytest.mark.parametrize("text", ["dangling", "dangling=perhaps", "colour=red"])
def test_a_filter_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--filter"):
        listed("", text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1_000, "1kB"), (1_234_567, "1.23MB"), (125_400_000, "125MB"), (999_900, "1000kB"),
     (2 * 10**12, "2TB")],
)  # fmt: skip
def test_sizes_are_dockers(size: int, text: str) -> None:
    assert words.docker_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second ago"), (1, "1 second ago"), (59, "59 seconds ago"), (60, "About a minute ago"),
        (240, "4 minutes ago"), (3_600, "About an hour ago"), (47 * 3_600, "47 hours ago"), (3 * 86_400, "3 days ago"),
        (21 * 86_400, "3 weeks ago"), (90 * 86_400, "3 months ago"), (800 * 86_400, "2 years ago"),
    ],
)  # fmt: skip
def test_ages_are_dockers(seconds: int, text: str) -> None:
    assert words.docker_age((NOW - dt.timedelta(seconds=seconds)).isoformat(), NOW) == text
    assert words.docker_age("", NOW) == "N/A"


def test_created_by_is_cut_at_45_characters() -> None:
    assert words.created_by("/bin/sh -c\tapt-get update", whole=False) == "/bin/sh -c apt-get update"
    assert words.created_by("x" * 46, whole=False) == "x" * 44 + "…"
    assert words.created_by("x" * 46, whole=True) == "x" * 46


def got(*, current: bool, **layers: bool) -> dict[str, Any]:
    rows = [{"id": name * 64, "existed": existed} for name, existed in layers.items()]
    return {"current": current, "layers": rows, "digests": {"linuxtips/apache:1.0": "sha256:77"}, "digest": "sha256:99"}


def test_a_pull_is_told_as_docker_tells_it() -> None:
    assert words.pull_heading("linuxtips/apache:1.0") == ["1.0: Pulling from linuxtips/apache"]
    assert words.pull_heading("busybox") == ["Using default tag: latest", "latest: Pulling from library/busybox"]
    assert words.pull_heading("localhost:5000/apache") == ["Using default tag: latest", "latest: Pulling from apache"]
    results = [got(current=False, a=True, b=False), got(current=True, a=True, b=True)]
    assert words.pull_result("linuxtips/apache:1.0", results) == [
        "aaaaaaaaaaaa: Already exists",
        "bbbbbbbbbbbb: Pull complete",
        "Digest: sha256:77",
        "Status: Downloaded newer image for linuxtips/apache:1.0",
        "docker.io/linuxtips/apache:1.0",
    ]


def test_a_pull_of_what_all_nodes_have_is_up_to_date() -> None:
    assert words.pull_result("linuxtips/apache:1.0", [got(current=True, a=True)])[:-1] == [
        "Digest: sha256:77",
        "Status: Image is up to date for linuxtips/apache:1.0",
    ]


def test_run_tells_the_pull_of_an_image_that_no_node_has() -> None:
    assert words.run_heading("registry:2") == ["Unable to find image 'registry:2' locally", "2: Pulling from library/registry"]
    assert words.run_heading("busybox")[0] == "Unable to find image 'busybox:latest' locally"
    pulled = [
        "Digest: sha256:77",
        "Status: Downloaded newer image for linuxtips/apache:1.0",
    ]
    told = words.run_pulled("linuxtips/apache:1.0", got(current=False, a=True, b=False))
    assert told == ["aaaaaaaaaaaa: Already exists", "bbbbbbbbbbbb: Pull complete", *pulled]
    late = words.run_pulled("linuxtips/apache:1.0", got(current=True, a=True))  # the replica's own pull was quicker
    assert late == ["aaaaaaaaaaaa: Pull complete", *pulled]


def test_a_push_is_told_as_docker_tells_it() -> None:
    assert words.push_heading("linuxtips/apache:1.0") == ["The push refers to repository [docker.io/linuxtips/apache]"]
    assert words.push_heading("localhost:5000/apache")[0] == "Using default tag: latest"
    states = [("a", "exists"), ("b", "pushed"), ("c", "mounted")]
    layers = [{"id": f"sha256:{name * 64}", "state": state} for name, state in states]
    assert words.push_result("linuxtips/apache:1.0", {"layers": layers, "digest": "sha256:77", "size_bytes": 1153}) == [
        "cccccccccccc: Mounted from another repository",
        "bbbbbbbbbbbb: Pushed",
        "aaaaaaaaaaaa: Layer already exists",
        "1.0: digest: sha256:77 size: 1153",
    ]


def test_what_is_loaded_is_told_once_for_all_nodes() -> None:
    loads = [{"node": node, "names": ["busybox:latest"], "ids": ["sha256:1"]} for node in ("n1", "n2")]
    assert words.loaded(loads) == ["Loaded image: busybox:latest", "Loaded image ID: sha256:1"]


def test_what_is_removed_is_told_once() -> None:
    rows: list[dict[str, Any]] = [{"Untagged": "busybox:latest", "Nodes": ["n1"]}, *[{"Deleted": "sha256:1"}] * 2]
    assert words.removed(rows) == ["Untagged: busybox:latest", "Deleted: sha256:1"]
    assert words.removed(rows, lower=True) == ["untagged: busybox:latest", "deleted: sha256:1"]


@pytest.mark.parametrize("typed", [("export", "web"), ("container", "export", "web"), ("save", "web")])
def test_no_archive_goes_to_a_terminal(
    typed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(list(typed)) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"shoal: cowardly refusing to {typed[-2]} to a terminal: use -o FILE, or redirect it\n")


def test_no_archive_comes_from_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHOAL_CONFIG_DIR", str(tmp_path))
    screen, terminal = pty.openpty()
    with open(screen, "rb"), open(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["load"]) == 1
    told = "requested load from stdin, but that is the terminal: use -i FILE, or redirect it"
    assert capsys.readouterr().err == f"shoal: {told}\n"


def test_an_archive_replaces_no_device_and_its_folder_has_to_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, away = tmp_path / "pipe", tmp_path / "away" / "web.tar"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for target in (pipe, tmp_path / "link"):
        assert main(["save", "-o", str(target), "web"]) == 1
        assert capsys.readouterr().err == f"shoal: {target}: this is no regular file: leave -o away to write to stdout\n"
    assert main(["export", "-o", str(away), "web"]) == 1
    nowhere = f"{away}: nothing can be written there: {away.parent}: no such file or directory"
    assert capsys.readouterr().err == f"shoal: {nowhere}\n"


def test_every_verb_of_container_is_a_command() -> None:
    assert set(VERBS.values()) <= set(COMMANDS)
    assert all(container_command.get_command(click.Context(container_command), verb) for verb in VERBS)
