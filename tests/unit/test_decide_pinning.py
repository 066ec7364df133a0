"""Which digest a service's image is pinned to: rules of policy, what nodes have, and what a registry says."""

from __future__ import annotations

import pytest

from controller.decide.pinning import Pin, Wish, asks_registry, pin, pinned, wish_of, with_digest
from model.documents import ServiceDoc
from model.spec import ContainerSpec, ServiceSpec

OLD, NEW, HELD = (f"sha256:{digit * 64}" for digit in "123")


@pytest.mark.parametrize(
    ("wish", "asked"),
    [
        (Wish("web"), True),
        (Wish("web", held=(HELD,)), False),
        (Wish("web", before=OLD), False),
        (Wish("web", "always", held=(HELD,), before=OLD), True),
        (Wish("web", "missing", "always", held=(HELD,)), True),
        (Wish("web", "always", "never"), False),
        (Wish("web", "never", "always"), False),
        (Wish("web", "never"), False),
        (Wish(f"web@{OLD}", "always", "always"), False),
    ],
)  # fmt: skip
def test_a_registry_is_asked_when_nodes_do_not_know_or_its_word_is_wanted(wish: Wish, asked: bool) -> None:
    assert asks_registry(wish) is asked


@pytest.mark.parametrize(
    ("wish", "answer", "digest"),
    [
        (Wish("web"), NEW, NEW),
        (Wish("web", held=(HELD,), before=OLD), "", HELD),
        (Wish("web", held=(HELD, OLD), before=OLD), "", OLD),
        (Wish("web", held=(HELD, OLD)), "", HELD),
        (Wish("web", before=OLD), "", OLD),
        (Wish("web", "always", held=(HELD,), before=OLD), NEW, NEW),
        (Wish("web", "missing", "always", held=(HELD,)), NEW, NEW),
        (Wish("web", "never", held=(HELD,), before=OLD), "", HELD),
        (Wish("web", "missing", "never", held=(HELD,), before=OLD), "", OLD),
        (Wish("web", "missing", "never", held=(HELD,)), "", ""),
        (Wish(f"web@{OLD}", "always", "always", held=(HELD,)), "", ""),
    ],
)  # fmt: skip
def test_it_is_pinned_without_a_word(wish: Wish, answer: str, digest: str) -> None:
    assert pin(wish, answer) == Pin(digest)


@pytest.mark.parametrize(
    ("wish", "digest", "words"),
    [
        (Wish("web"), "", "each node pulls it by itself and may run other bytes"),
        (Wish("web", "always", held=(HELD,), before=OLD), HELD, "what the nodes have is taken"),
        (Wish("web", "always", before=OLD), OLD, "what the nodes have is taken"),
    ],
)
def test_a_registry_that_does_not_answer_is_a_warning_and_never_a_refusal(wish: Wish, digest: str, words: str) -> None:
    found = pin(wish, problem="no node is ready")
    said = "image web could not be accessed on a registry to record its digest (no node is ready)"
    assert found == Pin(digest, f"{said}: {words}")


def test_an_image_that_must_not_be_pulled_and_is_nowhere_is_said() -> None:
    assert pin(Wish("web", "never")) == Pin("", "image web is on no node, and its pull policy is 'never'")


def service(image: str = "web:1", digest: str = "", **more: str) -> ServiceSpec:
    return ServiceSpec("shop_web", ContainerSpec(image, image_digest=digest, **more))  # type: ignore[arg-type]


def test_the_digest_until_now_counts_only_under_the_same_name() -> None:
    known = ServiceDoc("id", service(digest=OLD), 1)
    assert wish_of(service(), known, "changed", (HELD,)).before == OLD
    assert wish_of(service("web:2"), known, "changed", (HELD,)).before == ""
    assert wish_of(service(), None, "always", (HELD,)) == Wish("web:1", "missing", "always", (HELD,))


def test_a_spec_has_the_digest_beside_the_image_as_it_was_written() -> None:
    made = pinned(service(), {"shop_web": NEW})
    assert (made.container.image, made.container.image_digest, with_digest(made)) == ("web:1", NEW, f"web:1@{NEW}")
    assert pinned(made, {"shop_web": NEW}) is made
    assert with_digest(pinned(made, {})) == "web:1"
