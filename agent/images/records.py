"""What the image store hands out, and how a node talks to registries: frozen records.

Rules: pure data. Layers are bottom first, ready to be lower directories of overlayfs. Sizes in bytes. A password never
appears in a repr.
"""

from __future__ import annotations

import platform as host_platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from model.image_ref import image_platform
from model.spec import Healthcheck, Pairs

PullPolicy = Literal["missing", "always", "never"]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How the image wants to be run. `entrypoint` and `cmd` None: not said by the image."""

    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: Pairs = ()
    working_dir: str = ""
    user: str = ""
    volumes: tuple[str, ...] = ()
    labels: Pairs = ()
    exposed_ports: tuple[str, ...] = ()
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """One image on this node. `id` is the config's digest, `digest` the manifest's, `names` are familiar references."""

    id: str
    names: tuple[str, ...]
    digest: str
    layers: tuple[Path, ...]
    config: ImageConfig
    size_bytes: int
    created: datetime | None


@dataclass(frozen=True, slots=True)
class Details:
    """What a node keeps of an image besides its files. `config` is the text whose digest is the image's id, `manifest` the
    digest it came with first. By name: `manifests` it came with, `digests` a registry has for the name (of the manifest, or of
    the index that led there). `sizes_bytes` of its layers; `blobs`, by kept manifest the digests of its layers; both
    bottom first."""

    config: str
    manifest: str
    manifests: Mapping[str, str]
    digests: Mapping[str, str]
    sizes_bytes: tuple[int, ...]
    blobs: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class HeldImage:
    """What a node can give to others of an image. `names`: canonical references, each with the digest it stands for here (of
    the index where there is one, else of the manifest); `blobs`: digests of what is kept as it came, and of the config.
    Sorted."""

    id: str
    names: tuple[tuple[str, str], ...]
    blobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Removed:
    """What went: an image by its id (empty: it stayed), `layers` by diff id, bottom first, and the bytes of all of it."""

    id: str = ""
    layers: tuple[str, ...] = ()
    freed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """What a registry says of an image. `digest` is the manifest's, `config` the text whose digest is the image's id,
    `sizes_bytes` those of its layers as they are sent, bottom first."""

    id: str
    digest: str
    config: str
    sizes_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a registry or an archive may make this node do."""

    manifest_bytes: int = 4 << 20
    config_bytes: int = 8 << 20
    layers: int = 400
    """overlayfs takes 500 lower directories."""
    blob_bytes: int = 20 << 30
    unpacked_bytes: int = 40 << 30
    entries: int = 2_000_000
    """Files, directories and links of one layer."""


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """How this node reaches registries.

    `mirrors` maps a registry's name in references (`docker.io`) to the endpoints (`host:port`) asked INSTEAD of it, in
    order; name the registry itself in the list to fall back to it. A push goes to the registry itself, never to a mirror.
    Plain http is spoken with loopback hosts (until one says that it wants TLS) and with the endpoints in `insecure`, with
    nobody else; `ca_files` names the CA
    of an endpoint that has one of its own (then TLS is spoken with it wherever it is). `platform` is
    `os/architecture[/variant]`.
    """

    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    insecure: frozenset[str] = frozenset()
    ca_files: Mapping[str, Path] = field(default_factory=dict)
    cluster_ca: Path | None = None
    """Trusted besides the machine's own CAs: registries of the cluster itself have certificates of it."""
    token_servers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By endpoint the hosts (`host[:port]`) of another domain that may be told its credentials."""
    platform: str = field(default_factory=lambda: host_image_platform())
    timeout_s: float = 30.0
    attempts: int = 5
    backoff_s: float = 0.25
    """Wait after the first failed attempt; doubles each time, 5 s at most."""
    parallel: int = 3
    """Layers fetched and unpacked at a time, over all pulls of the node; layers sent at a time, over all pushes."""
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is; bytes are compressed ones. `bytes_total` counts only the layers that must be fetched.
    `layers_of_peers`, `bytes_of_peers`: what of it other nodes gave."""

    ref: str
    layers_done: int
    layers_total: int
    bytes_done: int
    bytes_total: int
    layers_of_peers: int = 0
    bytes_of_peers: int = 0


PushState = Literal["waiting", "pushing", "pushed", "exists", "mounted"]


@dataclass(frozen=True, slots=True)
class LayerPush:
    """How far one layer is; bytes are compressed ones."""

    digest: str
    state: PushState
    bytes_done: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class PushProgress:
    """How far a push is; `layers` bottom first. What the registry had already counts as done."""

    ref: str
    layers: tuple[LayerPush, ...]

    @property
    def layers_done(self) -> int:
        return sum(1 for layer in self.layers if layer.state not in ("waiting", "pushing"))

    @property
    def layers_total(self) -> int:
        return len(self.layers)

    @property
    def bytes_done(self) -> int:
        return sum(layer.bytes_done for layer in self.layers)

    @property
    def bytes_total(self) -> int:
        return sum(layer.bytes_total for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a registry has now. `digest` and `manifest_bytes` are the manifest's, `size_bytes` the sum of config and layers as
    they are kept there; `layers` are (digest, `pushed`, `exists` or `mounted`), bottom first."""

    digest: str
    manifest_bytes: int
    size_bytes: int
    layers: tuple[tuple[str, PushState], ...]


PushSink = Callable[[PushProgress], None]
ProgressSink = Callable[[PullProgress], None]


def host_image_platform() -> str:
    """This machine in the words of image indexes: `linux/amd64`."""
    return image_platform(host_platform.machine())
