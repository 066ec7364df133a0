"""What a bench has measured, as one JSON object beside what it prints.

Rules: a figure has a name that says what was done and a unit; the same names in every run. With `--json` among a bench's words
its text goes to stderr, and to stdout one object {"name [unit]": number}.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable

_found: dict[str, float] = {}


def add(name: str, value: float, unit: str = "") -> None:
    """One figure; the median where there were rounds."""
    _found[f"{name} [{unit}]" if unit else name] = round(value, 4)


def run(main: Callable[[], object]) -> None:
    """A bench's `main`, with `--json` taken from its words."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it made is taken away
    as_json = "--json" in sys.argv
    if as_json:
        sys.argv.remove("--json")
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        main()
    if as_json:
        print(json.dumps(_found))
