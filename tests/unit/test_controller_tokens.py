"""Join tokens: what is read back is what was made, and the secret shows nowhere."""

from __future__ import annotations

import pytest

from model.errors import BadInput
from model.tokens import Token, parse_token


def test_round_trip() -> None:
    token = Token("ab" * 32, "abc123", "s" * 48)
    assert parse_token(token.text()) == token
    assert parse_token(f" {token.text()}\n") == token


def test_the_secret_is_not_in_its_repr() -> None:
    token = Token("ab" * 32, "abc123", "topsecrettopsecret")
    assert "topsecret" not in repr(token)
    assert "topsecret" not in token.secret_sha256()


@pytest.mark.parametrize("text", ["", "SHOAL-1-", "SWMTKN-1-aa-bb", "SHOAL-1-" + "g" * 64 + "-id-" + "s" * 20, "SHOAL-2-x-y-z"])
def test_others_are_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_token(text)
    assert len(text) < 10 or text not in str(caught.value)
