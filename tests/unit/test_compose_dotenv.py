"""`.env` and env files."""

from __future__ import annotations

from model.compose.dotenv import parse_env
from model.compose.problems import Report


def parse(
    text: str, env: dict[str, str] | None = None, *, raw: bool = False, earlier: dict[str, str] | None = None
) -> dict[str, str | None]:
    report = Report()
    found = parse_env(text.encode(), "e.env", env or {}, report, raw=raw, earlier=earlier)
    assert not report.problems, report.problems
    return found


def test_forms_of_a_line() -> None:
    text = "A=1\nexport B=2\nC: 3\n  D = spaced  \nE=\n# comment\n\nF=a b # comment\nG=a#b\nH= # comment\nI=#x\n"
    assert parse(text) == {
        "A": "1", "B": "2", "C": "3", "D": "spaced", "E": "", "F": "a b", "G": "a#b", "H": "", "I": "#x",
    }  # fmt: skip


def test_quotes() -> None:
    assert parse('A=\'raw $X \\n\'\nB="a\\tb \\"q\\" \\$X"\nC="two\nlines" # c\nD=\'it\\\'s\'\n', {"X": "x"}) == {
        "A": "raw $X \\n",
        "B": 'a\tb "q" $X',
        "C": "two\nlines",
        "D": "it's",
    }


def test_variables_look_outside_then_above_then_in_earlier_files() -> None:
    text = "A=own\nB=$A\nC=${D:-none}\nE=$E0\nF=$OUT\nOUT=own\n"
    assert parse(text, {"OUT": "env"}, earlier={"E0": "early", "A": "lost"}) == {
        "A": "own", "B": "own", "C": "none", "E": "early", "F": "env", "OUT": "own",
    }  # fmt: skip


def test_a_bare_name_takes_the_value_of_the_environment() -> None:
    assert parse("X\nNO\n", {"X": "1"}) == {"X": "1", "NO": None}


def test_raw_takes_values_as_written() -> None:
    assert parse("A='$X' # c\nB= y\n", {"X": "1"}, raw=True) == {"A": "'$X' # c", "B": " y"}


def test_windows_line_ends_and_byte_order_mark() -> None:
    assert parse("\ufeffA=1\r\nB=2\r\n") == {"A": "1", "B": "2"}


def test_faults_name_the_line() -> None:
    report = Report()
    parse_env(b'A=1\nnot a variable\nB="multi\nline"\nC=${X:?need}\nD="open\n', "e.env", {}, report)
    assert [str(problem) for problem in report.problems] == [
        "e.env:2:1: 'not a variable' is no variable, expected NAME=value",
        "e.env:5:1: C: the variable X is required: need",
        'e.env:6:1: the value of D has no closing "',
    ]


def test_not_text() -> None:
    report = Report()
    parse_env(b"A=\xff", "e.env", {}, report)
    assert str(report.problems[0]) == "e.env: is not UTF-8 text (byte 2)"
