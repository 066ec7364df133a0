"""What a mirror holds, and how listings and watch batches change it. Pure.

Rules:
- `floor`: a listing of that revision was taken in whole; a change at or below it is old news and is dropped.
- A listing is older than the changes that arrived while it was read: of those the newer one wins, key by key.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable

from model.store_port import Entry, Event, Listing, WatchBatch


class Table:
    """`keep_values` False: of a value only so much is kept that another one is seen to differ, for who keeps what is told."""

    def __init__(self, on_change: Callable[[str, Entry | None], None], keep_values: bool = True) -> None:
        self._keep_values = keep_values
        self.revision = 0
        self.healed = 0
        self._floor = 0
        self._on_change = on_change
        self._entries: dict[str, Entry] = {}
        self._keys: list[str] = []
        self._deleted_since: dict[str, int] | None = None
        """While a compare is on its way: the deletes that arrived meanwhile, with their revisions."""

    @property
    def floor(self) -> int:
        """Of the newest listing that was taken in."""
        return self._floor

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def items(self, prefix: str) -> list[tuple[str, Entry]]:
        found: list[tuple[str, Entry]] = []
        for at in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[at]
            if not key.startswith(prefix):
                break
            found.append((key, self._entries[key]))
        return found

    def apply(self, batch: WatchBatch) -> None:
        """Takes in what a watch gave."""
        for event in batch.events:
            self._event(event)
        self.revision = max(self.revision, batch.revision)

    def _event(self, event: Event) -> None:
        held = self._entries.get(event.key)
        if event.mod_revision <= max(self._floor, held.mod_revision if held else 0):
            return
        if event.kind == "put":
            self._set(Entry(event.key, event.value, event.mod_revision, event.create_revision, event.version))
            if self._deleted_since is not None:
                self._deleted_since.pop(event.key, None)
            return
        if self._deleted_since is not None:
            self._deleted_since[event.key] = event.mod_revision
        self._drop(event.key)

    def start_compare(self) -> None:
        """A listing is asked for now: remember the deletes that arrive before it does."""
        self._deleted_since = {}

    def replace(self, listing: Listing) -> None:
        """Holds exactly what the listing says from now on, whatever was known before (also an older state)."""
        wanted = {entry.key: entry for entry in listing.entries}
        for key in [key for key in self._keys if key not in wanted]:
            self._drop(key)
        for entry in listing.entries:
            if self._entries.get(entry.key) != self._kept(entry):
                self._set(entry)
        self.revision = self._floor = listing.revision
        self._deleted_since = None

    def compare(self, listing: Listing) -> int:
        """Heals what differs from a listing that was asked for after `start_compare`; how many keys that was."""
        changed = 0
        deleted, self._deleted_since = self._deleted_since or {}, None
        lost_up_to = self.revision
        wanted = {entry.key for entry in listing.entries}
        for key in [key for key in self._keys if key not in wanted]:
            held = self._entries[key]
            if held.mod_revision <= listing.revision:
                # When it was deleted is unknown; if the watch was behind the listing, it may still have told us.
                self.healed += listing.revision <= lost_up_to
                self._drop(key)
                changed += 1
        for entry in listing.entries:
            have = self._entries.get(entry.key)
            newest = max(have.mod_revision if have else 0, deleted.get(entry.key, 0))
            if entry.mod_revision > newest:
                self.healed += entry.mod_revision <= lost_up_to
                self._set(entry)
                changed += 1
        self._floor = max(self._floor, listing.revision)
        self.revision = max(self.revision, listing.revision)
        return changed

    def _set(self, entry: Entry) -> None:
        if entry.key not in self._entries:
            insort(self._keys, entry.key)
        self._entries[entry.key] = self._kept(entry)
        self._on_change(entry.key, entry)

    def _kept(self, entry: Entry) -> Entry:
        if self._keep_values:
            return entry
        return Entry(entry.key, b"%x" % hash(entry.value), entry.mod_revision, entry.create_revision, entry.version)

    def _drop(self, key: str) -> None:
        if self._entries.pop(key, None) is not None:
            self._keys.pop(bisect_left(self._keys, key))
            self._on_change(key, None)
