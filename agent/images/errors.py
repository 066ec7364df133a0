"""What can go wrong with images, so that callers may tell "later" from "never"."""

from __future__ import annotations

import errno
from pathlib import Path

from model.errors import BadInput, DiskFull, ImageError
from model.image_ref import ImageRef, parse_image_ref

HUB_ENDPOINT = "registry-1.docker.io"


class ImageNotFound(ImageError):
    """No registry asked has it, or it is not on this node and may not be pulled."""

    status = 404
    code = "image_not_found"


class RegistryRefused(ImageError):
    """The registry wants other credentials, or does not allow this."""

    code = "registry_refused"


class RegistryUnavailable(ImageError):
    """No answer, or only server errors, after all attempts; the same pull may succeed later."""

    status = 503
    code = "registry_unavailable"


class ImageInUse(ImageError):
    status = 409
    code = "image_in_use"


class PullStopped(ImageError):
    """The store is closing."""

    code = "pull_stopped"


def disk_error(error: OSError, what: str, where: Path) -> ImageError | DiskFull:
    """One line for a failed write: full disks get their own class."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"{what}: disk full at {where}: free space there (`shoal image prune`) or enlarge it")
    return ImageError(f"{what}: cannot write below {where}: {error.strerror or error}")


def unauthorized(endpoint: str, what: str, *, given: bool, detail: str = "") -> RegistryRefused:
    """A registry wants to know who asks. `what`: the image, or empty; `given`: it was told credentials."""
    login = "shoal login" if endpoint == HUB_ENDPOINT else f"shoal login {endpoint}"
    hint = f"{'are the credentials right?' if given else 'is the name right?'} else `{login}`, then pull, push or apply again"
    return RegistryRefused(" ".join(f"registry {endpoint} refuses {what}: unauthorized ({detail}{hint})".split()))


def denied(endpoint: str, what: str, wish: str, said: str) -> RegistryRefused:
    """A registry knows who asks and says no."""
    return RegistryRefused(f"registry {endpoint} refuses {what}: denied{said}: these credentials may not {wish}")


def not_to_push(ref: ImageRef) -> ImageNotFound:
    return ImageNotFound(f"image {ref.familiar} is not on this node: give one that is this name with `shoal image tag`")


def new_name(text: str) -> ImageRef:
    """A name an image may be given; raises BadInput."""
    ref = parse_image_ref(text)
    if ref.digest is not None:
        raise BadInput(f"image name {text[:120]!r} has a digest: a new name has a tag or none")
    return ref
