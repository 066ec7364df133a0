"""`shoal login`, `logout` and `search` against registries that want a password, a token or nothing; and what is kept."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli import docker_config
from cli.main import main
from cli.registry_headers import registry_auth, registry_config
from tests.contract.hostile_registry import BASIC, PASSWORD, USER, Answer, Hostile, Request, hostile_registry
from tests.patience import PATIENCE

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60 * PATIENCE)]
HELPER = """#!/bin/sh
file=$(dirname "$0")/kept.json
case "$1" in
    store) cat > "$file" ;;
    get) cat > /dev/null; [ -e "$file" ] && cat "$file" || { echo credentials not found in native keychain; exit 1; } ;;
    erase) cat > /dev/null; rm "$file" ;;
esac
"""


@contextmanager
def registry(wants: str = "basic", results: list[dict[str, Any]] | None = None) -> Iterator[Hostile]:
    """`wants`: basic, bearer or nothing."""

    def answer(state: Hostile, request: Request) -> Answer:
        given = request.headers.get("authorization", "")
        if request.path.startswith("/token"):
            return Answer(200 if given == BASIC else 401, b'{"token": "good"}')
        if request.path.startswith("/v1/search"):
            return Answer(404 if results is None else 200, json.dumps({"results": results}).encode())
        if {"basic": BASIC, "bearer": "Bearer good"}.get(wants, given) == given:
            return Answer(200)
        realm = f'Bearer realm="http://{state.endpoint}/token",service="fake"'
        return Answer(401, b"{}", {"WWW-Authenticate": realm if wants == "bearer" else 'Basic realm="here"'})

    with hostile_registry() as state:
        state.lie = answer
        yield state


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOAL_CONFIG_DIR", str(tmp_path / "shoal"))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    return tmp_path / "shoal" / "config.json"


def login(*words: str, stdin: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    file = tmp_path / "stdin"
    file.write_text(stdin)
    with file.open() as source:
        monkeypatch.setattr(sys, "stdin", source)
        return main(["login", *words])


@pytest.mark.parametrize("wants", ["basic", "bearer", "nothing"])
def test_a_good_password_is_kept_as_docker_keeps_it(
    wants: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry(wants) as found:
        words = (found.endpoint, "-u", USER, "--password-stdin")
        assert login(*words, stdin=f"{PASSWORD}\n", monkeypatch=monkeypatch, tmp_path=tmp_path) == 0
    assert capsys.readouterr().out == "Login Succeeded\n"
    assert json.loads(config.read_text()) == {"auths": {found.endpoint: {"auth": BASIC.split()[1]}}}
    assert config.stat().st_mode & 0o777 == 0o600
    header = registry_auth(f"{found.endpoint}/apache:1.0")["X-Registry-Auth"]
    assert json.loads(base64.urlsafe_b64decode(header)) == {"username": USER, "password": PASSWORD}
    assert registry_auth("elsewhere:5000/apache") == registry_auth("busybox") == {}
    several = registry_config([f"{found.endpoint}/apache:1.0", "busybox", f"{found.endpoint}/web", "else:5000/x", "No Name"])
    sent = json.loads(base64.urlsafe_b64decode(several["X-Registry-Config"]))
    assert sent == {found.endpoint: {"username": USER, "password": PASSWORD}}
    assert registry_config(["busybox", "elsewhere:5000/x"]) == {}


@pytest.mark.parametrize("wants", ["basic", "bearer"])
def test_a_bad_password_is_one_line_and_kept_nowhere(
    wants: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry(wants) as found:
        words = (found.endpoint, "-u", USER, "--password-stdin")
        assert login(*words, stdin="wrong", monkeypatch=monkeypatch, tmp_path=tmp_path) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n"), "unauthorized: incorrect username or password" in told.err) == ("", 1, True)
    assert "wrong" not in told.err
    assert not config.exists()


def challenge(header: str) -> Callable[[str], Answer]:
    return lambda other: Answer(401, b"{}", {"WWW-Authenticate": header.format(other=other)})


LIES: dict[str, tuple[Callable[[str], Answer], str]] = {
    "a token server of another domain": (challenge('Bearer realm="http://{other}/token"'), "is not told the password"),
    "a name of the registry before another": (challenge('Bearer realm="http://127.0.0.1@{other}/token"'), "is not told"),
    "a token server by plain http": (challenge('Bearer realm="http://elsewhere.example/token"'), "plain http is refused"),
    "a token server that is no address": (challenge('Bearer realm="http://[/token"'), "address that is none"),
    "a token server of another kind": (challenge('Bearer realm="file:///etc/passwd"'), "address that is none"),
    "a challenge after a redirect": (lambda other: Answer(307, b"", {"Location": f"http://{other}/v2/"}), "unauthorized"),
    "a redirect to plain http": (lambda _: Answer(307, b"", {"Location": "http://elsewhere.example/v2/"}), "plain http is"),
    "a redirect that is no address": (lambda _: Answer(307, b"", {"Location": "http://[::1/"}), "address that is none"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_registry_is_told_no_password_for_another(
    lie: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other server says what it hears as the registry does, and would give a token for it."""
    made, why = LIES[lie]
    with hostile_registry() as found, hostile_registry("127.0.0.2") as elsewhere:
        found.lie = lambda state, request: made(elsewhere.endpoint)
        words = (found.endpoint, "-u", USER, "--password-stdin")
        assert login(*words, stdin=PASSWORD, monkeypatch=monkeypatch, tmp_path=tmp_path) == 1
        assert found.requests
        assert not any("authorization" in request.headers or USER in request.path for request in elsewhere.requests)
    told = capsys.readouterr().err
    assert (told.count("\n"), why in told, PASSWORD in told) == (1, True, False), told
    assert not config.exists()


def test_a_token_server_leads_no_password_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with hostile_registry() as found, hostile_registry("127.0.0.2") as elsewhere:
        token = challenge('Bearer realm="http://{other}/token"')(found.endpoint)
        away = Answer(307, b"", {"Location": f"http://{elsewhere.endpoint}/token"})
        found.lie = lambda state, request: away if request.path.startswith("/token") else token
        words = (found.endpoint, "-u", USER, "--password-stdin")
        assert login(*words, stdin=PASSWORD, monkeypatch=monkeypatch, tmp_path=tmp_path) == 1
        assert [request.headers.get("authorization") for request in found.requests if "/token" in request.path] == [BASIC]
        assert elsewhere.requests
        assert not any("authorization" in request.headers for request in elsewhere.requests)
    assert PASSWORD not in capsys.readouterr().err


def test_a_second_login_takes_what_is_kept_and_logout_forgets_it(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config.parent.mkdir()
    config.write_text('{"auths": {"other": {}}, "psFormat": "x"}')
    with registry() as found:
        docker_config.keep(found.endpoint, docker_config.Login(USER, PASSWORD))
        assert main(["login", found.endpoint]) == 0
        assert capsys.readouterr().out == "Authenticating with existing credentials...\nLogin Succeeded\n"
        assert main(["logout", found.endpoint]) == main(["logout", found.endpoint]) == 0
    out = capsys.readouterr().out
    assert out == f"Removing login credentials for {found.endpoint}\nNot logged in to {found.endpoint}\n"
    assert json.loads(config.read_text()) == {"auths": {"other": {}}, "psFormat": "x"}


def test_a_credential_helper_keeps_it_instead_of_the_file(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "bin" / "docker-credential-box"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    file = tmp_path / "docker" / "config.json"
    file.parent.mkdir()
    file.write_text('{"credsStore": "box"}')
    with registry() as found:
        assert docker_config.known(found.endpoint) is None
        words = (found.endpoint, "-u", USER, "--password-stdin")
        assert login(*words, stdin=PASSWORD, monkeypatch=monkeypatch, tmp_path=tmp_path) == 0
        assert json.loads(file.read_text()) == {"credsStore": "box", "auths": {found.endpoint: {}}}
        assert docker_config.known(found.endpoint) == docker_config.Login(USER, PASSWORD)
        assert main(["logout", found.endpoint]) == 0
    assert docker_config.known(found.endpoint) is None
    assert not config.exists()
    program.unlink()
    assert main(["logout", found.endpoint]) == 1
    assert "docker-credential-box" in capsys.readouterr().err


def test_on_a_terminal_name_and_password_are_asked_for(config: Path) -> None:
    with registry() as found:
        terminal, theirs = pty.openpty()
        command = [sys.executable, "-m", "shoal", "login", found.endpoint]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
            os.close(theirs)
            try:
                answers = [("Username: ", f"{USER}\n"), ("Password: ", f"{PASSWORD}\n"), ("Login Succeeded", "")]
                seen = _dialogue(terminal, answers)
            finally:
                os.close(terminal)
    assert process.returncode == 0, seen
    assert PASSWORD not in seen
    assert json.loads(config.read_text())["auths"]


def _dialogue(terminal: int, turns: list[tuple[str, str]]) -> str:
    seen, end = "", time.monotonic() + 30 * PATIENCE
    for wanted, answer in turns:
        while wanted not in seen:
            assert time.monotonic() < end, seen
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096).decode()
        os.write(terminal, answer.encode())
    try:
        while piece := os.read(terminal, 4096):
            seen += piece.decode()
    except OSError:  # the other end is closed: it has ended
        pass
    return seen


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("-u", USER, "-p", "x", "--password-stdin"), "mutually exclusive"),
        (("--password-stdin",), "Must provide --username"),
        ((), "non TTY device"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    words: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert login("127.0.0.1:1", *words, stdin="", monkeypatch=monkeypatch, tmp_path=tmp_path) == 1
    assert why in capsys.readouterr().err


def test_a_broken_config_is_told_and_not_overwritten(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.parent.mkdir()
    config.write_text("{")
    assert main(["logout"]) == 1
    assert str(config) in capsys.readouterr().err
    assert config.read_text() == "{"


def test_search_shows_what_the_registry_answers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"name": "linuxtips/apache", "description": "a page", "star_count": 0, "is_official": False, "is_automated": False},
        {"name": "httpd", "description": "x" * 50, "star_count": 9, "is_official": True},
    ]
    with registry("nothing", rows) as found:
        assert main(["search", f"{found.endpoint}/linuxtips/apache"]) == 0
        assert found.requests[-1].path == "/v1/search?q=linuxtips%2Fapache&n=25"
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"]
    assert first.split() == ["httpd", "x" * 44 + "…", "9", "[OK]"]
    assert second.split() == ["linuxtips/apache", "a", "page", "0"]


def test_a_registry_without_search_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with registry("nothing") as found:
        assert main(["search", f"{found.endpoint}/x"]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert f"registry {found.endpoint} has no search" in told.err
