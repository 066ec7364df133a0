"""The Compose Specification as shoal's native format, loaded by pure code.

Rules: no I/O here; files come through the `Files` port, the environment as a mapping. `load_project` gives the resolved
project or raises ComposeError with all problems; `validate_resolved` checks one that came from elsewhere.
"""

from __future__ import annotations

from model.compose.loader import Loaded, load_project, validate_resolved
from model.compose.problems import ComposeError, Mark, Problem, Warning_
from model.compose.sources import Files

__all__ = ["ComposeError", "Files", "Loaded", "Mark", "Problem", "Warning_", "load_project", "validate_resolved"]
