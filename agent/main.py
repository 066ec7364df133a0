"""`shoal agent`: the daemon on every node.

Rules: what must happen before any thread exists happens here (joining, private mounts, gRPC's fork support off); then the
wiring takes over. SIGTERM and SIGINT end the agent and leave every container running.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run until stopped; the exit code."""
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _save_memory()
    from agent.settings import parse

    settings = parse(sys.argv[1:] if argv is None else argv)
    import logging

    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    from model.errors import ShoalError

    try:
        if os.geteuid() != 0:
            raise ShoalError("the agent runs containers and needs root: start it as root")
        if not (settings.data_dir / "node.json").exists():
            from agent.wiring import join_now

            join_now(settings)
            _begin_anew()
        from agent.runtime.mountns import enter_private_mounts

        enter_private_mounts((settings.data_dir, settings.run_dir))
        from agent.wiring import run

        return run(settings)
    except ShoalError as error:
        print(f"shoal agent: {error}", file=sys.stderr)
        return 1


def _begin_anew() -> None:
    """Start this program again without the token: it leaves the list of processes, and the 9 MB joining took are free."""
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *without_token(sys.orig_argv[1:])])


def without_token(words: Sequence[str]) -> list[str]:
    """A command line without `--token VALUE` and `--token=VALUE`."""
    pairs = zip(["", *words], words, strict=False)
    return [word for before, word in pairs if before != "--token" and word.partition("=")[0] != "--token"]


def _save_memory() -> None:
    """Two malloc arenas instead of one for each thread: some 10 MB less in a process of many threads."""
    import ctypes

    arenas_max, trim_threshold = -8, -1
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(arenas_max, 2)
        libc.mallopt(trim_threshold, 256 << 10)


if __name__ == "__main__":
    sys.exit(main())
