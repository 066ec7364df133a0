"""`shoal login`, `logout` and `search` against registries that want a password, a token or nothing; and what is kept."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cli import docker_config
from cli.image_transfer import registry_auth
from cli.main import main
from tests.patience import PATIENCE

pytestmark = [pytest.mark.contract, pytest.mark.timeout(60 * PATIENCE)]
GOOD = f"Basic {base64.b64encode(b'ana:right').decode()}"
HELPER = """#!/bin/sh
file=$(dirname "$0")/kept.json
case "$1" in
    store) cat > "$file" ;;
    get) cat > /dev/null; [ -e "$file" ] && cat "$file" || { echo credentials not found in native keychain; exit 1; } ;;
    erase) cat > /dev/null; rm "$file" ;;
esac
"""


@dataclass
class Registry:
    """`wants`: basic, bearer or nothing. `asked`: (path, Authorization)."""

    wants: str = "basic"
    results: list[dict[str, Any]] | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    name: str = ""


@contextmanager
def registry(wants: str = "basic", results: list[dict[str, Any]] | None = None) -> Iterator[Registry]:
    state = Registry(wants, results)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "")
            state.asked.append((self.path, given))
            if self.path.startswith("/token"):
                self._answer(200 if given == GOOD else 401, {"token": "good"})
            elif self.path.startswith("/v1/search"):
                self._answer(404 if state.results is None else 200, {"results": state.results})
            elif {"basic": GOOD, "bearer": "Bearer good"}.get(state.wants, given) == given:
                self._answer(200, {})
            else:
                self._answer(401, {})

        def _answer(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            if status == 401:
                realm = f'Bearer realm="http://{state.name}/token",service="fake"'
                self.send_header("WWW-Authenticate", realm if state.wants == "bearer" else 'Basic realm="here"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.name = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
        words = (found.name, "-u", "ana", "--password-stdin")
        assert login(*words, stdin="right\n", monkeypatch=monkeypatch, tmp_path=tmp_path) == 0
    assert capsys.readouterr().out == "Login Succeeded\n"
    assert json.loads(config.read_text()) == {"auths": {found.name: {"auth": base64.b64encode(b"ana:right").decode()}}}
    assert config.stat().st_mode & 0o777 == 0o600
    header = registry_auth(f"{found.name}/apache:1.0")["X-Registry-Auth"]
    assert json.loads(base64.urlsafe_b64decode(header)) == {"username": "ana", "password": "right"}
    assert registry_auth("elsewhere:5000/apache") == registry_auth("busybox") == {}


@pytest.mark.parametrize("wants", ["basic", "bearer"])
def test_a_bad_password_is_one_line_and_kept_nowhere(
    wants: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry(wants) as found:
        words = (found.name, "-u", "ana", "--password-stdin")
        assert login(*words, stdin="wrong", monkeypatch=monkeypatch, tmp_path=tmp_path) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n"), "unauthorized: incorrect username or password" in told.err) == ("", 1, True)
    assert "wrong" not in told.err
    assert not config.exists()


def test_a_second_login_takes_what_is_kept_and_logout_forgets_it(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config.parent.mkdir()
    config.write_text('{"auths": {"other": {}}, "psFormat": "x"}')
    with registry() as found:
        docker_config.keep(found.name, docker_config.Login("ana", "right"))
        assert main(["login", found.name]) == 0
        assert capsys.readouterr().out == "Authenticating with existing credentials...\nLogin Succeeded\n"
        assert main(["logout", found.name]) == main(["logout", found.name]) == 0
    out = capsys.readouterr().out
    assert out == f"Removing login credentials for {found.name}\nNot logged in to {found.name}\n"
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
        assert docker_config.known(found.name) is None
        words = (found.name, "-u", "ana", "--password-stdin")
        assert login(*words, stdin="right", monkeypatch=monkeypatch, tmp_path=tmp_path) == 0
        assert json.loads(file.read_text()) == {"credsStore": "box", "auths": {found.name: {}}}
        assert docker_config.known(found.name) == docker_config.Login("ana", "right")
        assert main(["logout", found.name]) == 0
    assert docker_config.known(found.name) is None
    assert not config.exists()
    program.unlink()
    assert main(["logout", found.name]) == 1
    assert "docker-credential-box" in capsys.readouterr().err


def test_on_a_terminal_name_and_password_are_asked_for(config: Path) -> None:
    with registry() as found:
        terminal, theirs = pty.openpty()
        command = [sys.executable, "-m", "shoal", "login", found.name]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
            os.close(theirs)
            try:
                seen = _dialogue(terminal, [("Username: ", "ana\n"), ("Password: ", "right\n"), ("Login Succeeded", "")])
            finally:
                os.close(terminal)
    assert process.returncode == 0, seen
    assert "right" not in seen
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
        (("-u", "ana", "-p", "x", "--password-stdin"), "mutually exclusive"),
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
        assert main(["search", f"{found.name}/linuxtips/apache"]) == 0
        assert found.asked[-1][0] == "/v1/search?q=linuxtips%2Fapache&n=25"
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"]
    assert first.split() == ["httpd", "x" * 44 + "…", "9", "[OK]"]
    assert second.split() == ["linuxtips/apache", "a", "page", "0"]


def test_a_registry_without_search_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with registry("nothing") as found:
        assert main(["search", f"{found.name}/x"]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert f"registry {found.name} has no search" in told.err
