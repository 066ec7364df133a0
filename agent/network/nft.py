"""libnftables by ctypes: one context, one lock, one transaction a call.

Rules: every change of ours in this namespace goes through one `Nft`, so that the kernel's count of changes tells ours from
those of others. A subprocess of `nft` costs 13 to 31 ms a change, this 0.3 ms. Rule text comes from agent/plan.
"""

from __future__ import annotations

import ctypes
import json
import threading
from typing import Any, Final

from agent.network.nfnl import Nfnetlink
from agent.plan import nfnl
from model.errors import RuntimeFailed

_STATELESS: Final = 1 << 2
_JSON: Final = 1 << 4


class Nft:
    """The rules of the network namespace this process lives in."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL("libnftables.so.1")
        except OSError as error:
            raise RuntimeFailed(f"libnftables.so.1 cannot be loaded ({error}): install the package libnftables1") from error
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        library.nft_ctx_get_output_buffer.argtypes = [ctypes.c_void_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._context = library.nft_ctx_new(0)
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)
        self._lock = threading.Lock()
        self._netlink = Nfnetlink()
        self._generation = self._netlink.generation()
        self._foreign = 0

    def run(self, text: str) -> str:
        """One transaction; gives what nft prints. Raises RuntimeFailed with nft's first line when it is refused."""
        with self._lock:
            self._count(own=0)
            done = False
            try:
                output = self._perform(text)
                done = True
            finally:
                self._count(own=int(done and not text.startswith("list ")))
        return output

    def listing(self, command: str) -> list[dict[str, Any]]:
        """What `command` (`list table inet shoal`) shows, without counts: the objects of nft's own JSON."""
        with self._lock:
            self._library.nft_ctx_output_set_flags(self._context, _JSON | _STATELESS)
            try:
                output = self._perform(command)
            finally:
                self._library.nft_ctx_output_set_flags(self._context, 0)
        found: list[dict[str, Any]] = json.loads(output)["nftables"] if output else []
        return found

    def counts(self, table: str, name: str) -> dict[str, tuple[int, int]]:
        """Packets and bytes for each address of a set of an inet table. By way of nft's own text it takes six times as long.
        Raises RuntimeFailed when there is no such set."""
        found: dict[str, tuple[int, int]] = {}
        for payload in self._netlink.dump(nfnl.dump_elements(table, name)):
            found |= nfnl.parse_counts(payload)
        return found

    def foreign_changes(self) -> int:
        """How many times it was seen that somebody else has changed rules, in whatever table. Grows only."""
        with self._lock:
            self._count(own=0)
            return self._foreign

    def _count(self, own: int) -> None:
        """`own`: by how much a change of ours may have raised the kernel's number since the last look."""
        now = self._netlink.generation()
        if now not in (self._generation, self._generation + own):
            self._foreign += 1
        self._generation = now

    def _perform(self, text: str) -> str:
        code = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        problem: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if code:
            lines = problem.decode(errors="replace").strip().splitlines()
            raise RuntimeFailed(f"nftables: {lines[0] if lines else 'refused'}")
        return output.decode(errors="replace")

    def close(self) -> None:
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None
                self._netlink.close()
