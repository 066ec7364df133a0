"""`shoal import`: what is made of a tar before it is sent, read as a node reads it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from pathlib import Path

import pytest

from agent.images.archive import read_archive
from agent.images.records import Limits
from cli.image_import import config_of, take_tar, write_archive
from model.errors import BadInput
from tests.contract.images_server import tar_of

TAR = tar_of({"file": b"mine"})


@pytest.mark.parametrize("raw", [TAR, gzip.compress(TAR)], ids=["plain", "gzip"])
def test_a_tar_becomes_an_archive_with_one_image(raw: bytes, tmp_path: Path) -> None:
    layer, archive = io.BytesIO(), io.BytesIO()
    diff_id = take_tar(io.BytesIO(raw), layer)
    assert (diff_id, layer.getvalue()) == (f"sha256:{hashlib.sha256(TAR).hexdigest()}", TAR)
    config = config_of(diff_id, "linux/arm/v7", "2026-11-22T12:00:00Z", "from there", ['CMD ["serve"]'])
    write_archive(archive, config, layer, "mine")
    (tmp_path / "archive").write_bytes(archive.read())
    (image,) = read_archive(tmp_path / "archive", "linux/arm/v7", Limits())
    assert (image.config.diff_ids, image.config.platform, image.config.config.cmd) == ((diff_id,), "linux/arm/v7", ("serve",))
    assert list(image.names) == ["docker.io/library/mine:latest"]
    assert b"".join(image.layers[0].pieces()) == TAR
    assert json.loads(config)["history"][0]["comment"] == "from there"


@pytest.mark.parametrize(
    "raw",
    [b"", b"no tar" * 200, gzip.compress(TAR)[:-20], gzip.compress(b"no tar")],
    ids=["empty", "text", "cut", "gzip of text"],
)
def test_what_is_no_tar_is_refused(raw: bytes) -> None:
    with pytest.raises(BadInput, match="no tar"):
        take_tar(io.BytesIO(raw), io.BytesIO())
