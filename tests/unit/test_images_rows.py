"""The images of the cluster as one Docker would have them: merging, finding, removing."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api import images_rows as rows
from model.errors import BadInput, Conflict, NotFound

A, B = "sha256:" + "a" * 64, "sha256:" + "ab" + "b" * 62


def row(node: str, image_id: str = A, *names: str, created: str = "2026-01-01", **containers: bool) -> dict[str, Any]:
    used = [{"id": name * 64, "name": name, "running": running} for name, running in containers.items()]
    digests = {name: f"sha256:{'d' * 64}" for name in names if "@" not in name}
    return {"node": node, "id": image_id, "names": names, "digests": digests, "size_bytes": 7, "created": created,
            "containers": used}  # fmt: skip


def test_the_same_image_on_several_nodes_is_one() -> None:
    found = rows.images_of([row("n1", A, "x:1"), row("n2", A, "x:1", "y:1"), row("n2", B, created="2026-02-01")])
    assert [image.id for image in found] == [B, A]
    assert found[1].names == {"x:1": ("n1", "n2"), "y:1": ("n2",)}
    assert rows.plain(found[1])["nodes"] == ["n1", "n2"]


@pytest.mark.parametrize(
    "text", ["x", "x:latest", "docker.io/library/x", A, A[7:], "aaa", "sha256:aaaaaaaaaaaaa", f"x@sha256:{'d' * 64}"]
)
def test_an_image_is_found_by(text: str) -> None:
    assert rows.find(rows.images_of([row("n1", A, "x:latest"), row("n1", B, "y:1")]), text).id == A


def test_a_beginning_that_two_ids_have_is_refused() -> None:
    with pytest.raises(BadInput, match="2 images"):
        rows.find(rows.images_of([row("n1", A), row("n1", B)]), "a")


@pytest.mark.parametrize(
    ("text", "told"), [("nothing", "nothing:latest"), ("x:2", "x:2"), ("ffff", "ffff:latest"), ("A B", "A B")]
)
def test_what_is_nowhere_is_told_with_its_tag(text: str, told: str) -> None:
    with pytest.raises(NotFound, match=f"^No such image: {told}$"):
        rows.find(rows.images_of([row("n1", A, "x:1")]), text)


def test_a_name_of_two_images_means_the_one_most_nodes_have() -> None:
    old, new = row("n1", A, "x:latest"), row("n2", B, "x:latest", created="2026-02-01")
    assert rows.find(rows.images_of([old, new]), "x").id == B
    assert rows.find(rows.images_of([old, new, {**old, "node": "n3"}]), "x").id == A
    assert {each.image.id for each in rows.removal(rows.images_of([old, new]), "x", False)} == {A, B}


def test_one_of_two_names_is_taken_away_although_a_container_runs() -> None:
    (wanted,) = rows.removal(rows.images_of([row("n1", A, "x:1", "y:1", c=True)]), "x:1", False)
    assert (wanted.untag, wanted.delete) == (("x:1",), False)


@pytest.mark.parametrize(
    ("reference", "force", "running", "words"),
    [
        ("x:1", False, True, 'unable to remove repository reference "x:1" (must force) - container cccccccccccc is using'),
        ("x:1", False, False, 'unable to remove repository reference "x:1" (must force) - container cccccccccccc is using'),
        ("x:1", True, True, "unable to delete aaaaaaaaaaaa (cannot be forced) - image is being used by running container ccc"),
        ("aaaa", True, True, "unable to delete aaaaaaaaaaaa (cannot be forced) - image is being used by running container"),
        ("aaaa", False, False, "unable to delete aaaaaaaaaaaa (must be forced) - image is being used by stopped container"),
    ],
)
def test_an_image_in_use_is_refused_in_dockers_words(reference: str, force: bool, running: bool, words: str) -> None:
    images = rows.images_of([row("n1", A, "x:1"), row("n2", A, "x:1", c=running)])
    with pytest.raises(Conflict) as caught:
        rows.removal(images, reference, force)
    assert words in str(caught.value)


def test_by_force_what_only_stopped_containers_use_goes() -> None:
    images = rows.images_of([row("n1", A, "x:1", "y:1", c=False)])
    assert rows.removal(images, "aaaa", True)[0].untag == ("x:1", "y:1")
    with pytest.raises(Conflict, match="referenced in multiple repositories"):
        rows.removal(images, "aaaa", False)


def test_the_last_name_of_a_repository_takes_its_digest_along() -> None:
    digest = f"sha256:{'d' * 64}"
    one, two = rows.images_of([row("n1", A, "x:1")]), rows.images_of([row("n1", A, "x:1", "x:2")])
    assert rows.untagged(rows.removal(one, "x:1", False)[0]) == ["x:1", f"x@{digest}"]
    assert rows.untagged(rows.removal(two, "x:1", False)[0]) == ["x:1"]
    assert rows.untagged(rows.removal(two, A, True)[0]) == ["x:1", "x:2", f"x@{digest}"]


def test_what_is_saved_comes_from_a_node_that_has_all_of_it() -> None:
    images = rows.images_of([row("n1", A, "x:1", "y:1"), row("n2", A, "x:1"), row("n2", B, "z:1")])
    found = rows.to_save(images, ["x:1", B, "y:1", "x:1"])
    assert (found.node, [names for _, names in found.images]) == ("n2", [("x:1", "y:1"), ()])
    with pytest.raises(Conflict, match="no node has all of w, z:1"):
        rows.to_save([*images, *rows.images_of([row("n3", "sha256:ee", "w:latest")])], ["w", "z:1"])


def test_a_prune_leaves_what_is_used_and_without_all_what_has_a_name() -> None:
    images = rows.images_of([row("n1", A, "x:1"), row("n1", B), row("n1", "sha256:cc", "z:1", c=False)])
    assert [each.image.id for each in rows.unused(images, False)] == [B]
    assert {each.image.id for each in rows.unused(images, True)} == {A, B}
