"""`shoal build`: what is left out of a context, how it is packed, and what a Compose file has built."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.build import Wish, args_of, base_images, build_command, headers_of, labels_of, result_lines
from cli.build_context import OUTSIDE, Reader, archive_of, open_context
from cli.compose_build import builds_of, with_images
from cli.dockerignore import read_ignore
from model.errors import BadInput


@pytest.mark.parametrize(
    ("patterns", "covered", "kept"),
    [
        ("*.log", ["a.log"], ["d/a.log", "a.logs"]),
        ("**/*.log", ["a.log", "d/e/a.log"], ["a.log.txt"]),
        ("node_modules", ["node_modules", "node_modules/a/b"], ["d/node_modules"]),
        ("**/node_modules/", ["node_modules/a", "d/node_modules/a"], ["node_module"]),
        ("/src", ["src/a"], ["d/src"]),
        ("a/*/c", ["a/b/c", "a/b/c/d"], ["a/c", "a/b/x/c"]),
        ("a?", ["ab", "ab/c"], ["a", "abc", "a/"]),
        ("[a-c].x", ["b.x"], ["d.x"]),
        ("[^a].x", ["b.x"], ["a.x"]),
        ("*\n!keep*\nkeep-not", ["a", "keep-not"], ["keep", "keep-this/a"]),
        ("d\n!d/e", ["d", "d/f"], ["d/e", "d/e/g"]),
        ("# one\n\n  a  \n", ["a"], ["# one"]),
        ("**", ["a", "a/b"], []),
        ("a/../b", ["b"], ["a"]),
        ("\\#x\n", ["#x"], ["x"]),
        (".\n./\n/", [], ["a"]),
        ("**/a/**", ["a/b", "x/a/b"], ["b"]),
    ],
)
def test_patterns_are_dockers(patterns: str, covered: list[str], kept: list[str]) -> None:
    ignore = read_ignore(patterns)
    assert [path for path in covered if not ignore.covers(path)] == []
    assert [path for path in kept if ignore.covers(path)] == []


@pytest.mark.parametrize("pattern", ["!", "[a", "[z-a]"])
def test_a_pattern_that_is_none_is_one_line(pattern: str) -> None:
    with pytest.raises(BadInput, match=r"\.dockerignore line 2"):
        read_ignore(f"x\n{pattern}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("Dockerfile", "FROM a\n"), ("src/app", "#!"), ("src/.env", "x"), ("deep/a/b", "1"), ("deep/c", "2")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "src" / "app").chmod(0o755)
    (tmp_path / "link").symlink_to("../outside")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def packed(path: str | Path, file: str = "", inline: str = "") -> dict[str, tarfile.TarInfo]:
    data = b"".join(archive_of(open_context(str(path), file, inline)))
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        return {member.name: member for member in archive}


def test_a_folder_is_packed_with_modes_and_links(folder: Path) -> None:
    found = packed(folder)
    assert sorted(found) == ["Dockerfile", "deep", "deep/a", "deep/a/b", "deep/c", "link", "src", "src/.env", "src/app"]
    assert (found["link"].linkname, oct(found["src/app"].mode), found["src/app"].size) == ("../outside", "0o755", 2)
    assert {(member.uid, member.gid, member.uname) for member in found.values()} == {(0, 0, "")}
    assert b"".join(archive_of(open_context(str(folder)))) == b"".join(archive_of(open_context(str(folder))))


def test_what_is_taken_back_comes_with_its_folders(folder: Path) -> None:
    (folder / ".dockerignore").write_text("deep\n!deep/a\n**/.env\n")
    assert sorted(packed(folder)) == [".dockerignore", "Dockerfile", "deep", "deep/a", "deep/a/b", "link", "src", "src/app"]


def test_a_dockerfile_has_its_own_ignore_file(folder: Path) -> None:
    (folder / ".dockerignore").write_text("deep")
    (folder / "other").write_text("FROM b\n")
    (folder / "other.dockerignore").write_text("src\n*.dockerignore")
    assert "deep/c" in packed(folder, str(folder / "other"))
    assert "src/app" not in packed(folder, str(folder / "other"))


def test_a_dockerfile_that_is_not_of_the_context_comes_along(folder: Path, tmp_path: Path) -> None:
    (folder / ".dockerignore").write_text("Dockerfile")
    context = open_context(str(folder))
    assert (context.dockerfile, context.text) == (OUTSIDE, "FROM a\n")
    assert OUTSIDE in packed(folder)
    assert "Dockerfile" not in packed(folder)
    assert sorted(packed(folder / "deep", str(folder / "Dockerfile"))) == [OUTSIDE, "a", "a/b", "c"]
    assert packed(folder / "deep", inline="FROM x\n")[OUTSIDE].size == 7


def test_a_file_that_grows_or_shrinks_keeps_the_size_it_had(folder: Path) -> None:
    context = open_context(str(folder))
    pieces = archive_of(context)
    first = next(pieces)
    (folder / "deep" / "c").write_text("much longer")
    (folder / "src" / "app").write_text("")
    with tarfile.open(fileobj=io.BytesIO(first + b"".join(pieces)), mode="r:") as archive:
        assert {"Dockerfile", "src/app"} <= set(archive.getnames())


def test_a_reader_gives_what_was_asked_for() -> None:
    reader = Reader(iter([b"abc", b"", b"de"]))
    assert [reader.read(2), reader.read(2), reader.read(), reader.read(5)] == [b"ab", b"c", b"de", b""]


@pytest.mark.parametrize(
    ("path", "file", "why"),
    [
        ("nix", "", 'unable to prepare context: path "nix" not found'),
        ("Dockerfile", "", 'unable to prepare context: path "Dockerfile" is no folder'),
        ("src", "", "there is no src/Dockerfile: name the Dockerfile with -f FILE"),
        (".", "nix", "there is no nix: name the Dockerfile"),
        (".", "src", "src: Is a directory"),
        ("https://host/x.git", "", "contexts are not fetched"),
        ("git@host:x", "", "contexts are not fetched"),
    ],
)
def test_what_is_not_there_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, path: str, file: str, why: str) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(BadInput) as caught:
        open_context(path, file)
    assert str(caught.value).startswith(why) or why in str(caught.value)


def test_options_are_dockers() -> None:
    assert args_of(["A=1", "B", "C", "D=x=y"], {"B": "2"}) == {"A": "1", "B": "2", "D": "x=y"}
    assert labels_of(["a=b c", "d"]) == {"a": "b c", "d": ""}
    for wrong in (["=x"], [""]):
        with pytest.raises(BadInput):
            args_of(wrong, {})
        with pytest.raises(BadInput):
            labels_of(wrong)
    assert "PATH" in CliRunner().invoke(build_command, ["--help"]).output
    assert CliRunner().invoke(build_command, []).exit_code == 2
    built = {"id": "sha256:" + "12" * 32, "node": "n1"}
    assert result_lines(built, ["web"]) == ["Successfully built 121212121212 on n1", "Successfully tagged web:latest"]


def test_logins_of_the_base_images_registries_go_along_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    logins = {"one:5000": {"auth": "YTpi"}, "two:5000": {"auth": "Yzpk"}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": logins}))
    context, wish = open_context(str(tmp_path), inline="ARG A\nFROM one:5000/$A\nCOPY --from=b / /\n"), Wish(args={"A": "a"})
    assert base_images(context, wish) == ("one:5000/a", "b")
    found = headers_of(wish, base_images(context, wish))
    told = {name: json.loads(base64.urlsafe_b64decode(value)) for name, value in found.items()}
    assert told == {
        "X-Registry-Config": {"one:5000": {"username": "a", "password": "b"}}, "X-Shoal-Build-Args": {"A": "a"}
    }  # fmt: skip
    with pytest.raises(BadInput, match="too long"):
        headers_of(Wish(args={"A": "a" * 50_000}), ())


# Compose


def project(**build: Any) -> dict[str, Any]:
    return {"name": "shop", "services": {"db": {"image": "db:1"}, "web": {"build": {"context": "/src", **build}}}}


def test_an_image_is_called_as_docker_compose_calls_it() -> None:
    (found,) = builds_of(project(dockerfile="Dockerfile"))
    assert (found.image, found.context, found.dockerfile, found.always) == ("shop-web", "/src", "/src/Dockerfile", False)
    named = project(tags=["x:1", "web:2"], args={"A": "1"}, target="t", labels={"l": "v"}, no_cache=True, pull=True)
    named["services"]["web"] |= {"image": "web:2", "pull_policy": "build"}
    (found,) = builds_of(named)
    assert found.wish == Wish(("web:2", "x:1"), "t", {"A": "1"}, {"l": "v"}, True, True)
    assert found.always
    sent = with_images(named, [found])
    assert sent["services"]["web"] == {"image": "web:2", "pull_policy": "build"}
    assert sent["services"]["db"] == {"image": "db:1"}


def test_dockerfiles_may_stand_elsewhere_or_inline() -> None:
    assert builds_of(project(dockerfile="../Other"))[0].dockerfile == "/src/../Other"
    assert builds_of(project(dockerfile="/abs"))[0].dockerfile == "/abs"
    assert builds_of(project(dockerfile_inline="FROM a"))[0].inline == "FROM a"


@pytest.mark.parametrize(
    ("key", "value"), [("additional_contexts", {"a": "b"}), ("secrets", [{"source": "s"}]), ("ssh", {"default": ""}),
                   ("privileged", True), ("entitlements", ["x"]), ("network", "none")],
)  # fmt: skip
def test_what_shoal_cannot_build_with_is_one_line(key: str, value: Any) -> None:
    with pytest.raises(BadInput) as caught:
        builds_of(project(**{key: value}))
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(f"services.web.build.{key}: ")
    assert builds_of(project(network="host"))
