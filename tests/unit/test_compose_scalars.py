"""Units and numbers, and the substitution of variables."""

from __future__ import annotations

import pytest

from model.compose import scalars
from model.compose.interpolate import BadTemplate, Interpolator

NS = 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds", "back"),
    [
        ("1m30s", 90 * NS, "1m30s"),
        ("90s", 90 * NS, "1m30s"),
        ("2h", 7200 * NS, "2h0m0s"),
        ("1h0m1.5s", 3601 * NS + NS // 2, "1h0m1.5s"),
        ("500ms", NS // 2, "500ms"),
        ("250us", 250_000, "250µs"),
        ("1.5s", 3 * NS // 2, "1.5s"),
        ("0s", 0, "0s"),
        ("0", 0, "0s"),
        ("1d", 86_400 * NS, "24h0m0s"),
        ("1w", 7 * 86_400 * NS, "168h0m0s"),
        ("-1s", -NS, "-1s"),
    ],
)
def test_durations(text: str, nanoseconds: int, back: str) -> None:
    assert scalars.parse_duration_ns(text) == nanoseconds
    assert scalars.format_duration(nanoseconds) == back


@pytest.mark.parametrize("text", ["", "10", "s", "1x", "1 s", "1m 30s", "one", "1" * 100 + "s", "."])
def test_what_is_no_duration(text: str) -> None:
    assert scalars.parse_duration_ns(text) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("128M", 128 << 20),
        ("128m", 128 << 20),
        ("1g", 1 << 30),
        ("1.5GB", 3 << 29),
        ("2kib", 2048),
        ("100", 100),
        ("100b", 100),
        ("1 k", 1024),
        ("-1", -1),
        ("1t", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert scalars.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "m", "1x", "lots", "1e3", "1.m.2", "0x10"])
def test_what_is_no_size(text: str) -> None:
    assert scalars.parse_bytes(text) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.10, "1.1"), (True, "true"), (1000.0, "1000"), (1e23, "1e+23"), (1e-6, "1e-06"), (1234567.0, "1.234567e+06"),
     (5, "5"), (0.0, "0"), (-2.5, "-2.5"), (float("inf"), "+Inf")],
)  # fmt: skip
def test_scalars_become_text_as_docker_writes_them(value: float, text: str) -> None:
    assert scalars.to_text(value) == text


ENV = {"SET": "value", "EMPTY": "", "OTHER": "o"}


@pytest.mark.parametrize(
    ("template", "result"),
    [
        ("$SET ${SET}x$SET", "value valuexvalue"),
        ("${NO:-d}${NO-d}${EMPTY:-d}${EMPTY-d}", "ddd"),
        ("${SET:+r}${SET+r}${EMPTY:+r}${EMPTY+r}${NO:+r}${NO+r}", "rrr"),
        ("${SET:?e}${EMPTY?e}", "value"),
        ("${NO:-${NO2:-${SET}}}", "value"),
        ("${NO:-a$$b}", "a$b"),
        ("$$SET $1 $ $", "$SET $1 $ $"),
        ("${NO:-}", ""),
        ("${NO:-a}b}", "ab}"),
        ("${NO-:-x}", ":-x"),
        ("a", "a"),
    ],
)
def test_variables(template: str, result: str) -> None:
    assert Interpolator(ENV).text(template) == result


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("${NO:?say which}", "the variable NO is required: say which"),
        ("${NO?}", "the variable NO is required but not set"),
        ("${EMPTY:?full}", "required: full"),
        ("${SET", "has no closing brace"),
        ("${}", "names no variable"),
        ("${1}", "names no variable"),
        ("${SET!x}", "expected one of :- - :? ? :+ +"),
        ("${NO:?${SET} missing}", "required: value missing"),
    ],
)
def test_broken_variables(template: str, message: str) -> None:
    with pytest.raises(BadTemplate, match=r".") as caught:
        Interpolator(ENV).text(template)
    assert message in str(caught.value)


def test_only_what_is_used_is_reported_unset() -> None:
    interpolator = Interpolator(ENV)
    assert interpolator.text("${NO} ${NO} ${SET:-${NEVER}}") == "  value"
    assert list(interpolator.unset) == ["NO"]
