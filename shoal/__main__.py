"""The launcher: finds the folders, then hands over to a daemon or to the command line.

Rules:
- Nothing but the standard library's cheapest modules is imported here: every `shoal ps` pays for it.
- In a wheel the folders stand under shoal/_app/, in a checkout beside this package: the right one goes first on
  sys.path, so that `import model` means ours.
- Child processes start as `python -m shoal <role>`; the roles are named once, in ROLES, among them the one command that the
  command line may not import.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

ROLES = {
    "agent": "agent.main", "controller": "controller.main", "lab-helper": "lab.helper", "sim": "sim.main",
    "autoscale replay": "sim.replay.main",
}  # fmt: skip


def app_root(package_folder: str) -> str:
    """The folder that holds model/, cli/ and the rest: shoal/_app of a wheel, else the checkout's root."""
    inside = os.path.join(package_folder, "_app")
    return inside if os.path.isdir(inside) else os.path.dirname(package_folder)


def use_app_root() -> str:
    """Put the folder of the parts first on sys.path and return it; a second call changes nothing."""
    root = app_root(os.path.dirname(os.path.abspath(__file__)))
    if sys.path[:1] != [root]:
        sys.path[:] = [root, *(entry for entry in sys.path if entry != root)]
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run a daemon (`agent`, `controller`) or else the command line with these words; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    use_app_root()
    length = next((length for length in (1, 2) if " ".join(words[:length]) in ROLES), 0)
    entry = import_module(ROLES[" ".join(words[:length])] if length else "cli.main").main
    return int(entry(words[length:]) or 0)


if __name__ == "__main__":
    sys.exit(main())
