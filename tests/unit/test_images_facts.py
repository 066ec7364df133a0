"""What is told of a node's images out of what its store keeps."""

from __future__ import annotations

from agent.core import images_facts as facts
from agent.core.images_save import wanted_of
from agent.images.records import Details

OLD, NEW, INDEX = (f"sha256:{letter * 64}" for letter in "abc")
DETAILS = Details(
    config='{"rootfs": {"diff_ids": ["sha256:1"]}}',
    manifest=OLD,
    manifests={"x:1": OLD, "y:1": NEW, "y:2": NEW},
    digests={"x:1": OLD, "y:1": INDEX, "y:2": NEW},
    sizes_bytes=(7,),
    blobs={NEW: ("sha256:2",)},
)


def test_layers_are_named_as_the_registry_of_that_name_has_them() -> None:
    assert facts.layer_digests(DETAILS, "docker.io/library/y:1") == ("sha256:2",)
    assert facts.layer_digests(DETAILS, "x:1") == facts.layer_digests(DETAILS, "unknown:1") == ("sha256:1",)


def test_an_image_is_saved_once_for_each_manifest_its_names_came_with() -> None:
    assert wanted_of(DETAILS, "sha256:f", ("x:1", "y:1", "y:2")).came_as == {OLD: ("x:1",), NEW: ("y:1", "y:2")}
    assert wanted_of(DETAILS, "sha256:f", ()).came_as == {OLD: ()}
