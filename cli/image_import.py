"""`shoal import`: the files of a tar as an image of one layer, as `docker import`.

Rules: it is made into an archive here, with its config, and loaded like any other: the same image on every node.
"""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from typing import IO, Final

import click

from cli.connect import connected
from model.errors import BadInput
from model.image_changes import changed
from model.image_ref import image_platform, parse_image_ref
from model.stamps import utc_text

_GZIP: Final = b"\x1f\x8b"


@click.command("import", help="Make an image of a tar of files (- for stdin), on all nodes or on --node.")
@click.argument("source", metavar="FILE|-", type=click.File("rb"))
@click.argument("name", default="", metavar="[NAME[:TAG]]")
@click.option("-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help="of a Dockerfile: 'ENV A=1'")
@click.option("-m", "--message", default="", help="a word on where it comes from")
@click.option("--node", default="", help="only on this node")
def import_command(source: IO[bytes], name: str, changes: tuple[str, ...], message: str, node: str) -> None:
    if name and parse_image_ref(name).digest is not None:
        raise BadInput(f"{name}: a new name has no digest")
    if source.isatty():
        raise BadInput("the tar would come from the terminal: name a file, or redirect it")
    now = utc_text(dt.datetime.now(dt.UTC), "milliseconds")
    with tempfile.TemporaryFile() as layer, tempfile.TemporaryFile() as archive, connected() as client:
        diff_id = take_tar(source, layer)
        first = node or client.get("/v1/nodes")[0]["name"]
        info = client.get(f"/v1/nodes/{first}")["info"]
        platform = image_platform(info.get("arch", "x86_64"))  # what is as usual is not told
        config = config_of(diff_id, platform, now, message or f"Imported from {source.name}", changes)
        write_archive(archive, config, layer, name)
        client.call("POST", "/v1/images/load", archive, query={"node": node or None}, patient=True)
    click.echo(f"sha256:{hashlib.sha256(config).hexdigest()}")


def take_tar(source: IO[bytes], layer: IO[bytes]) -> str:
    """Copy a tar, unpacked when it is gzipped; its digest. Raises BadInput when it is none."""
    with tempfile.TemporaryFile() as raw:
        shutil.copyfileobj(source, raw)
        raw.seek(0)
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        try:
            shutil.copyfileobj(gzip.GzipFile(fileobj=raw) if packed else raw, layer)
            layer.seek(0)
            tarfile.open(fileobj=layer, mode="r:").close()
        except (gzip.BadGzipFile, EOFError, tarfile.TarError):
            raise BadInput("this is no tar, nor a gzipped one") from None
    layer.seek(0)
    digest = hashlib.sha256()
    while piece := layer.read(1 << 20):
        digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def config_of(diff_id: str, platform: str, created: str, comment: str, changes: Sequence[str]) -> bytes:
    """The config of the image. Raises BadInput."""
    system, architecture, *variant = platform.split("/")
    document = {
        "os": system,
        "architecture": architecture,
        **({"variant": variant[0]} if variant else {}),
        "created": created,
        "comment": comment,
        "config": changed({}, changes),
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "comment": comment}],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def write_archive(archive: IO[bytes], config: bytes, layer: IO[bytes], name: str) -> None:
    """As `docker save` makes it; ready to be read."""
    tags = [parse_image_ref(name).familiar] if name else None
    manifest = json.dumps([{"Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"]}]).encode()
    parts: list[tuple[str, IO[bytes]]] = [
        ("config.json", io.BytesIO(config)), ("manifest.json", io.BytesIO(manifest)), ("layer.tar", layer)
    ]  # fmt: skip
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as out:
        for member, content in parts:
            info = tarfile.TarInfo(member)
            info.size = content.seek(0, io.SEEK_END)
            content.seek(0)
            out.addfile(info, content)
    archive.seek(0)
