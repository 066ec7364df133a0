"""Small files in the run directory that outlive the agent.

Rules: whole or not at all, also when the agent is killed in the middle of writing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read(file: Path) -> Any:
    """What was written; None when there is no such file, or none that can be read."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def replace(file: Path, value: object) -> None:
    """What is there is there until the new one is whole."""
    part = file.with_name(f"{file.name}.part")
    write(part, value)
    os.replace(part, file)


def write(file: Path, value: object) -> None:
    """For a new file: one that was cut off in the middle cannot be read."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(value).encode())
    finally:
        os.close(descriptor)
