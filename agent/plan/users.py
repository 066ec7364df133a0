"""Finding a container's user in the image's own /etc/passwd and /etc/group, given as text.

Rules: damaged lines are skipped, never fatal. `user` is Docker's form: `name`, `uid`, `name:group`, `uid:gid`, empty for root.
A number needs no entry; a name does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from model.errors import RuntimeFailed

_ID_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class User:
    """`groups` are the additional ones, sorted. `home` is `/` where nothing better is known."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def find_user(user: str, group_add: Sequence[str], passwd: str, group: str) -> User:
    """Raises RuntimeFailed (permanent) for a name the image does not know."""
    name, separator, group_name = user.partition(":")
    entry = _passwd_entry(name or "0", passwd)
    if entry is None and not _is_id(name or "0"):
        raise RuntimeFailed(f"user {name!r} is not in the image's /etc/passwd", permanent=True)
    uid, gid, home, login = entry or (int(name or 0), 0, "/", "")
    extra: set[int] = set()
    if separator and group_name:
        gid = _group_id(group_name, group)
    elif login:  # as Docker does: a group given by hand replaces the memberships
        extra = {number for _, number, members in _groups(group) if login in members}
    extra |= {_group_id(name, group) for name in group_add}
    return User(uid, gid, tuple(sorted(extra | {gid} if extra else extra)), home or "/")


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= _ID_MAX


def _passwd_entry(name: str, passwd: str) -> tuple[int, int, str, str] | None:
    """uid, gid, home and login name: by name first, then by number."""
    rows = [row for row in (line.strip().split(":") for line in passwd.splitlines()) if len(row) >= 6]
    rows = [row for row in rows if _is_id(row[2]) and _is_id(row[3])]
    for index in (0, 2):
        for row in rows:
            if row[index] == name:
                return int(row[2]), int(row[3]), row[5], row[0]
    return None


def _groups(group: str) -> Iterator[tuple[str, int, frozenset[str]]]:
    for line in group.splitlines():
        row = line.strip().split(":")
        if len(row) >= 3 and _is_id(row[2]):
            yield row[0], int(row[2]), frozenset(row[3].split(",")) if len(row) > 3 else frozenset()


def _group_id(name: str, group: str) -> int:
    for found, number, _ in _groups(group):
        if found == name:
            return number
    if _is_id(name):
        return int(name)
    raise RuntimeFailed(f"group {name!r} is not in the image's /etc/group", permanent=True)
