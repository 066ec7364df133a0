"""The archive that the builder writes, made ready for the node's store.

Rules: appended to, never rewritten: of two members of one name the later one counts, for tar and for the store.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.plan.build_words import tidied
from model.errors import ImageError

CONFIG: Final = "config.json"
_CONFIG_BYTES_MAX: Final = 8 << 20


def make_archive(path: Path, names: Sequence[str]) -> None:
    """Give the one image in it its config as it is to be kept, and its names. Raises ImageError."""
    try:
        with tarfile.open(path, "r:") as archive:
            (entry,) = json.loads(_content(archive, "manifest.json"))
            config = tidied(_content(archive, entry["Config"]))
        manifest = json.dumps([{"Config": CONFIG, "RepoTags": list(names) or None, "Layers": entry["Layers"]}]).encode()
        with tarfile.open(path, "a:", format=tarfile.PAX_FORMAT) as archive:
            for name, content in ((CONFIG, config), ("manifest.json", manifest)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise ImageError(f"the built image: the builder's archive is not understood ({error})") from None


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise ValueError(f"no {name}")
    return member.read(_CONFIG_BYTES_MAX)
