"""A person's terminal joined to a process in a container, over one websocket.

Rules: the terminal is put back as it was, whatever happens. Frames as docs/api.md says: binary with the stream's number first
(0 stdin, 1 stdout, 2 stderr), text for everything else.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cli.client import ANSWER_S, CONNECT_S, DEFAULT_PORT, path_of, reason, tls
from cli.context import Context
from model.errors import RuntimeFailed, Unavailable
from model.pki_names import CONTROLLER_SERVER_NAME

if TYPE_CHECKING:
    from cli.line import Line

_CHUNK_BYTES: Final = 65_536
_NONE: Final = -1
"""No descriptor."""


def join(context: Context, path: str, *, tty_wanted: bool, stdin_wanted: bool, **query: Any) -> int:
    """Run until the process ends or the connection breaks; gives the exit code."""
    size = shutil.get_terminal_size()
    if tty_wanted:
        query |= {"rows": size.lines, "cols": size.columns}
    target = path_of(path, {"tty": tty_wanted, "stdin": stdin_wanted, **query})
    line = _open(context, target)
    try:
        with _raw(tty_wanted and stdin_wanted), _resizes(tty_wanted) as resized:
            return _relay(line, sys.stdin.fileno() if stdin_wanted else _NONE, resized)
    finally:
        line.close()


def fed(context: Context, path: str, stdin: bytes, **query: Any) -> int:
    """Run a process with these bytes on its stdin (at most 64 kB), without a terminal; gives the exit code."""
    line = _open(context, path_of(path, {"stdin": True, **query}))
    read, write = os.pipe()
    try:
        with os.fdopen(write, "wb") as file:
            file.write(stdin)
        return _relay(line, read, _NONE)
    finally:
        os.close(read)
        line.close()


def _open(context: Context, target: str) -> Line:
    from websockets.exceptions import InvalidStatus, WebSocketException

    from cli.line import open_line

    problem = "no address in the context"
    for api in context.apis:
        parts = urlsplit(api)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORT
        try:
            return open_line(host, port, target, tls(context), CONTROLLER_SERVER_NAME, connect_s=CONNECT_S, answer_s=ANSWER_S)
        except InvalidStatus as error:
            raise RuntimeFailed(_refusal(error.response)) from None
        except (OSError, WebSocketException) as error:
            problem = reason(error)
    raise Unavailable(f"cluster {context.name} cannot be reached ({problem}): is its controller running?")


def _refusal(response: Any) -> str:
    try:
        return str(json.loads(response.body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the controller refused with {response.status_code}"


def _relay(line: Line, stdin: int, resized: int) -> int:
    """Pass on what comes from either side until the exit code."""
    while True:
        for message in line.messages():
            if (code := _show(message)) is not None:
                return code
        if line.problem is not None:
            raise Unavailable(f"the connection broke ({reason(line.problem)}): the process may still run")
        for fd in line.turn(*({stdin, resized} - {_NONE})):
            if fd == stdin:
                stdin = _feed(line, stdin)
            else:
                _tell_size(line, resized)


def _show(message: str | bytes) -> int | None:
    """The exit code, if the message is that."""
    if isinstance(message, bytes):
        stream = sys.stderr.buffer if message[:1] == b"\x02" else sys.stdout.buffer
        stream.write(message[1:])
        stream.flush()
        return None
    told = json.loads(message)
    if "error" in told:
        raise RuntimeFailed(str(told["error"]))
    return int(told["exit_code"]) if "exit_code" in told else None


def _feed(line: Line, stdin: int) -> int:
    """Gives what to read from next: nothing after the end."""
    try:
        data = os.read(stdin, _CHUNK_BYTES)
    except BlockingIOError:
        return stdin
    except OSError:
        data = b""
    line.send(b"\x00" + data if data else json.dumps({"stdin_closed": True}))
    return stdin if data else _NONE


def _tell_size(line: Line, resized: int) -> None:
    os.read(resized, 1024)
    size = shutil.get_terminal_size()
    line.send(json.dumps({"resize": [size.lines, size.columns]}))


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    if not wanted or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizes(wanted: bool) -> Iterator[int]:
    """A descriptor that can be read after the window has a new size."""
    if not wanted or not sys.stdin.isatty():
        yield _NONE
        return
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def changed(*_: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(write, b".")

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield read
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(read)
        os.close(write)
