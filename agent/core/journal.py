"""What a restarted agent needs: <data-dir>/replicas/KEY.json, one for each replica, and <data-dir>/desired.json.

Rules: every file is written whole (temporary file, rename). No fsync: the journal must outlive the agent's death, not the
machine's, whose containers are gone too; a file that cannot be read is put aside and its replica begun anew.
The journal in memory keeps the same promises.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol, TypeVar

from agent.plan.records import Desired, Life, ReplicaId
from model import codec
from model.spec import ContainerSpec, ServiceSpec

log = logging.getLogger(__name__)
T = TypeVar("T")
_EMPTY: Final = ServiceSpec("", ContainerSpec(""))


class Kept(Protocol):
    """What the runner needs of a journal. Writing raises OSError; then what was written before still stands."""

    def save(self, life: Life) -> None: ...

    def drop(self, replica: ReplicaId) -> None:
        """Fine if it is not there; also on a full disk."""

    def load(self) -> list[Life]:
        """All replicas, in the order of their names."""

    def save_desired(self, desired: Desired) -> None: ...

    def load_desired(self) -> Desired:
        """The empty one before the first was saved."""

    def wipe(self) -> None:
        """Forget what must run: the node was removed."""


class Journal:
    """The real one, in files. Synchronous and small: about 100 us a write."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "replicas"
        self._desired = data_dir / "desired.json"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def save(self, life: Life) -> None:
        _write(self._folder / f"{life.id.text}.json", _encoded(life))

    def drop(self, replica: ReplicaId) -> None:
        (self._folder / f"{replica.text}.json").unlink(missing_ok=True)

    def load(self) -> list[Life]:
        lives = []
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith(".new-"):
                path.unlink()
            elif path.suffix == ".json" and (life := _read(path, Life)) is not None:
                lives.append(life)
        return lives

    def save_desired(self, desired: Desired) -> None:
        _write(self._desired, codec.encode(desired))

    def load_desired(self) -> Desired:
        return (_read(self._desired, Desired) if self._desired.exists() else None) or Desired()

    def wipe(self) -> None:
        self._desired.unlink(missing_ok=True)
        for path in self._folder.iterdir():
            path.unlink()


class MemoryJournal:
    """For tests and the simulation: outlives the agent as long as this object does. `full`: the disk has no space."""

    def __init__(self) -> None:
        self.full = False
        self._lives: dict[str, Life] = {}
        self._desired = Desired()

    def save(self, life: Life) -> None:
        self._need_space()
        self._lives[life.id.text] = life

    def drop(self, replica: ReplicaId) -> None:
        self._lives.pop(replica.text, None)

    def damage(self, replica: ReplicaId) -> None:
        """Its file cannot be read any more."""
        self.drop(replica)

    def load(self) -> list[Life]:
        return [self._lives[text] for text in sorted(self._lives)]

    def save_desired(self, desired: Desired) -> None:
        self._need_space()
        self._desired = desired

    def load_desired(self) -> Desired:
        return self._desired

    def wipe(self) -> None:
        self._lives.clear()
        self._desired = Desired()

    def _need_space(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _encoded(life: Life) -> bytes:
    """A life's JSON; the spec, which is most of it and shared by all replicas of a service, is encoded once."""
    plain = {name: value for name, value in codec.to_plain(replace(life, spec=_EMPTY)).items() if name != "spec"}
    head = json.dumps(plain, separators=(",", ":"), ensure_ascii=False).encode()
    return head[:-1] + b',"spec":' + _encoded_spec(life.spec) + b"}"


@lru_cache(maxsize=64)
def _encoded_spec(spec: ServiceSpec) -> bytes:
    return codec.encode(spec)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".new-{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)
    os.rename(temporary, path)


def _read(path: Path, cls: type[T]) -> T | None:
    try:
        return codec.decode(cls, path.read_bytes())
    except ValueError as error:
        log.error("journal: %s cannot be read (%s): put aside", path, error)
        path.rename(path.with_name(f"{path.name}.bad"))
        return None
