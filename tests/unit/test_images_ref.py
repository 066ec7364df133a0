"""Image references are read as Docker reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import BadInput
from model.image_ref import ImageRefError, parse_image_ref

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.35", "docker.io/library/busybox:1.35", "busybox:1.35"),
        ("shop/web", "docker.io/shop/web:latest", "shop/web:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/shop/web:2", "docker.io/shop/web:2", "shop/web:2"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
        ("10.0.0.1:5000/a/b/c:v1", "10.0.0.1:5000/a/b/c:v1", "10.0.0.1:5000/a/b/c:v1"),
        ("[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"h.example/x:1@{DIGEST}", f"h.example/x:1@{DIGEST}", f"h.example/x:1@{DIGEST}"),
        ("a__b-c/d.e---f", "docker.io/a__b-c/d.e---f:latest", "a__b-c/d.e---f:latest"),
    ],
)
def test_forms_people_write(text: str, canonical: str, familiar: str) -> None:
    ref = parse_image_ref(text)
    assert ref.canonical == canonical
    assert ref.familiar == familiar


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("busy box", "white space"),
        ("busybox\n", "white space"),
        ("https://h.example/x", "without a scheme"),
        ("BusyBox", "upper-case"),
        ("shop/Web", "upper-case"),
        ("busybox:", "tag ''"),
        ("busybox:-x", "tag '-x'"),
        ("busybox:" + "x" * 129, "tag"),
        ("a//b", "empty part"),
        ("shop/", "empty part"),
        ("/shop", "empty part"),
        ("a_-b/c", "'a_-b'"),
        ("busybox@sha256:12", "64 lower-case hex"),
        ("busybox@md5:" + "a" * 32, "sha256"),
        ("a" * 64, "image id"),
        ("-h.example/x", "host or host:port"),
        ("h.example:port/x", "host or host:port"),
        ("h.example/" + "a" * 250, "longer"),
    ],
)
def test_errors_say_what_is_wrong(text: str, word: str) -> None:
    with pytest.raises(ImageRefError) as caught:
        parse_image_ref(text)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


NEAR_REFERENCES = st.from_regex(r"\A([a-zA-Z0-9.:-]{1,12}/)?[a-z0-9._-]{1,8}(/[a-z0-9]{1,4})?(:[a-z.0-9-]{0,6})?\Z")


@given(st.text(max_size=80) | NEAR_REFERENCES)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        ref = parse_image_ref(text)
    except BadInput:
        return
    assert parse_image_ref(ref.canonical) == ref
    assert parse_image_ref(ref.familiar) == ref
