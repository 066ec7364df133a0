"""Which sealed credentials a service keeps. Pure: sealing itself is done by who is given as `Keep`.

Rules: they belong to the registry of the service's image. Who sends none changes nothing; an image from elsewhere takes none
along.
"""

from __future__ import annotations

from collections.abc import Callable

from model.documents import ServiceDoc
from model.image_ref import parse_image_ref

Keep = Callable[[str, str, ServiceDoc | None], str]
"""(service id, image, the service until now) -> sealed credentials, or empty."""


def as_before(service_id: str, image: str, before: ServiceDoc | None) -> str:
    """What is kept when none are sent."""
    if before is None or not before.registry_auth:
        return ""
    same = parse_image_ref(before.spec.container.image).registry == parse_image_ref(image).registry
    return before.registry_auth if same else ""
