"""The command line's pure parts: words in, requests and text out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import click
import pytest

from cli import client, context, explain, output
from cli.logs import parse_since, parse_tail
from cli.main import main
from cli.node import parse_count, parse_label
from cli.run import run_command
from cli.run_spec import mount, restart, service_spec
from cli.service import parse_scale
from cli.wait import progress, summary, told
from model.errors import BadInput, Conflict, NotFound, ShoalError
from model.spec import Mount

RUN: dict[str, Any] = {
    "image": "busybox:1", "command": ("sleep", "1"), "entrypoint": None, "env_files": (), "env": ("A=1",), "labels": (),
    "workdir": "", "user": "", "hostname": "", "init": False, "tty": False, "interactive": False, "read_only": False,
    "privileged": False, "cap_add": (), "cap_drop": (), "cpus": 0.0, "memory": "64M", "pids_limit": 0,
    "volumes": ("data:/d:ro", "/x"), "tmpfs": ("/t",), "restart": "on-failure:3", "stop_signal": "",
    "stop_timeout": 10.0, "pull": "missing", "name": "", "node": "n2", "auto_remove": True,
    "publish": (), "publish_all": False, "expose": (), "networks": (), "aliases": (), "ip": "", "links": (), "dns": (),
    "dns_search": (), "dns_option": (), "add_host": (), "domainname": "", "mac_address": "",
    "ip6": "",
}  # fmt: skip


def test_run_becomes_a_service_of_one_replica() -> None:
    spec = service_spec(RUN)
    assert spec.single
    assert spec.auto_remove
    assert spec.placement.node == "n2"
    assert spec.name.startswith("busybox-")
    box = spec.container
    assert (box.command, box.env, box.limits.memory_bytes) == (("sleep", "1"), (("A", "1"),), 64 << 20)
    assert box.mounts == (Mount("volume", "/d", "data", read_only=True), Mount("volume", "/x"), Mount("tmpfs", "/t"))
    assert (box.restart.condition, box.restart.max_attempts) == ("on-failure", 3)


@pytest.mark.parametrize("word", ["a:b:c:d", "data:relative", "data:/x:wrong", "relative"])
def test_a_bad_volume_is_one_clear_line(word: str) -> None:
    with pytest.raises(BadInput, match="-v"):
        mount(word)


def test_a_bind_mount_loses_its_trailing_slash() -> None:
    assert mount("/home/site/:/usr/share/www/") == Mount("bind", "/usr/share/www", "/home/site")


def test_restart_words_are_dockers() -> None:
    assert restart("no").condition == "none"
    assert restart("unless-stopped").condition == "any"
    with pytest.raises(BadInput, match="--restart"):
        restart("sometimes")


def test_words_of_scale_label_tail_and_since() -> None:
    assert parse_scale("shop_web=10") == ("shop_web", 10)
    assert parse_label("zone=a") == ("zone", "a")
    assert parse_label("zone-") == ("zone", None)
    assert (parse_count("gpu=2"), parse_count("gpu-")) == (("gpu", 2), ("gpu", None))
    assert parse_tail("all") is None
    assert parse_since("2026-01-31T12:00:00Z") == 1769860800000
    for bad in (lambda: parse_scale("web"), lambda: parse_label("zone"), lambda: parse_tail("x"), lambda: parse_since("soon"),
                lambda: parse_count("gpu=0"), lambda: parse_count("gpu")):  # fmt: skip
        with pytest.raises(BadInput):
            bad()


@pytest.mark.parametrize("name", ["GPU!", "foo-", "-foo", ".foo", "foo.", "_foo", "a b", "a\n", "x" * 256])
def test_a_name_that_nobody_could_ask_for_is_refused_and_can_be_removed(name: str) -> None:
    for read, value, what in ((parse_count, "1", "generic resource"), (parse_label, "a", "label")):
        with pytest.raises(BadInput, match="beginning and ending with a letter or digit") as caught:
            read(f"{name}={value}")
        assert str(caught.value).startswith(f"{what} {f'{name}={value}'!r}: its ")
        assert "\n" not in str(caught.value)
        assert read(f"{name}-") == (name, None)
    assert [parse_count(f"{name}=1")[0] for name in ("g", "GPU", "nvidia.a-100_x")] == ["g", "GPU", "nvidia.a-100_x"]
    assert parse_label("example.com/zone:1=") == ("example.com/zone:1", "")


def test_query_leaves_out_what_is_not_said() -> None:
    assert client.path_of("/v1/x", {"a": None, "b": False, "c": True, "d": ["1", "2"]}) == "/v1/x?c=true&d=1&d=2"


@pytest.mark.parametrize(("code", "kind"), [("not_found", NotFound), ("conflict", Conflict), ("new_word", ShoalError)])
def test_errors_of_the_api_come_back_as_our_own(code: str, kind: type[ShoalError]) -> None:
    with pytest.raises(kind, match="what, where, what to do"):
        client.parse(404, json.dumps({"error": {"code": code, "message": "what, where, what to do"}}).encode())


def test_an_answer_that_is_no_json_is_still_one_line() -> None:
    with pytest.raises(ShoalError, match="the controller answered 502"):
        client.parse(502, b"<html>")


def test_table_has_wide_columns_only_when_asked() -> None:
    columns = (("NAME", output.field("name")), ("+ID", output.field("id")))
    rows: list[dict[str, Any]] = [{"name": "a", "id": 1}, {"name": "long name", "id": None}]
    assert output.table(rows, columns) == "NAME\na\nlong name"
    assert output.table(rows, columns, wide=True).splitlines()[1:] == ["a           1", "long name   -"]


def test_progress_counts_the_newest_version_and_what_must_go() -> None:
    service = {"name": "shop_web", "version": 2, "wanted": 2}

    def row(slot: int, version: int, state: str, desired: str = "running", message: str = "") -> dict[str, Any]:
        return {"service": "shop_web", "name": f"shop_web.{slot}", "version": version, "state": state, "desired": desired,
                "message": message}  # fmt: skip

    half = progress(service, [row(1, 2, "running"), row(2, 1, "running"), row(3, 1, "running", "shutdown")])
    assert (half.done, half.wanted, half.others, half.complete()) == (1, 2, 2, False)
    assert progress(service, [row(1, 2, "running"), row(2, 2, "running")]).complete()
    bad = progress(service, [row(1, 2, "rejected", message="no such image")])
    assert bad.rejected
    assert "no such image" in summary([bad], 0)
    assert told([bad]) == "shop_web 0/2; shop_web.1: rejected: no such image"


def test_contexts_are_private_files_and_the_current_one_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("SHOAL_CONTEXT", raising=False)
    with pytest.raises(NotFound, match="shoal lab up"):
        context.load()
    made = context.Context("home", ("https://192.0.2.1:7443",), "CA", "CERT", "KEY")
    context.save(made)
    assert context.load() == made
    assert context.context_path("home").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("SHOAL_CONTEXT", "away")
    with pytest.raises(NotFound, match="known: home"):
        context.load()
    monkeypatch.delenv("SHOAL_CONTEXT")
    context.forget("home")
    assert context.current_name() == ""


@pytest.mark.parametrize("text", ["garbage", "[]", "{}", '{"name": 1}', '{"name": "x", "apis": "https://a", "ca": ""}'])
def test_a_broken_context_file_says_what_it_should_be(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BadInput, match=r"x\.json: not a context file .*: copy the controller's admin\.json again"):
        context.read(tmp_path / "x.json")


def test_rubbish_where_a_name_or_a_ca_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("SHOAL_CONTEXT", raising=False)
    (tmp_path / "current").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="shoal context use"):
        context.load()
    with pytest.raises(BadInput, match="context home: its CA is no certificate"):
        client.tls(context.Context("home", ("https://192.0.2.1:7443",), "CA", "CERT", "KEY"))


@pytest.mark.parametrize("words", [["plan", "--foo"], ["foo"], ["node", "foo"], ["node", "label", "n1"], ["run", "-n"]])
def test_bad_usage_is_one_line_and_not_plans_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("shoal: ")
    assert line.endswith("--help`") or "--help` lists them" in line


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["volume"]) == 1
    assert capsys.readouterr().err.startswith("Usage: shoal volume")


def test_pruning_without_a_terminal_asks_for_f(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["volume", "prune"]) == 1
    assert "-f does not ask" in capsys.readouterr().err


def test_two_dashes_before_a_command_only_part_it_from_our_options() -> None:
    assert output.command_words(("--", "ls", "--", "-l")) == ["ls", "--", "-l"]
    assert output.command_words(("ls", "-l")) == ["ls", "-l"]


def test_options_stop_at_the_image_and_unknown_ones_before_it_are_named() -> None:
    words = ("ls", "-h", "--", "-x")
    assert run_command.make_context("run", ["--rm", "busybox", *words]).params["command"] == words
    with pytest.raises(click.NoSuchOption):
        run_command.make_context("run", ["--detatch", "busybox"])


def test_explaining_a_stack_names_its_services() -> None:
    class Services:
        def get(self, path: str) -> list[dict[str, str]]:
            return [{"name": "shop_web", "stack": "shop"}, {"name": "box", "stack": ""}]

    assert explain.unknown(Services(), "shop") == "shop is a stack: explain one of its services: shop_web"  # type: ignore[arg-type]
    assert "no service, replica or node" in explain.unknown(Services(), "box2")  # type: ignore[arg-type]
