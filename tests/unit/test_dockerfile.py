"""What a build has to know of a Dockerfile beforehand: stages, the images they need, and what is wrong in one line."""

from __future__ import annotations

import pytest

from model.dockerfile import expand, images_of, read_dockerfile, target_of
from model.errors import BadInput

TUTORIAL = """\
### a line of three signs is a comment, too
FROM node:10 as build-stage
WORKDIR /usr/src/app
COPY ["./package.json", "./package-lock.json", "./"]
RUN npm install
COPY ["./src", "./src"]
RUN npm run build
FROM nginx:1.17
COPY --from=build-stage /usr/src/app/build /usr/share/nginx/html
EXPOSE 80
CMD ["nginx", "-g", "daemon off;"]
"""


def images(text: str, target: str = "", **args: str) -> tuple[str, ...]:
    return images_of(read_dockerfile(text, args), target)


def test_the_tutorials_stages() -> None:
    found = read_dockerfile(TUTORIAL, {})
    assert [(stage.base, stage.name, len(stage.steps)) for stage in found.stages] == [
        ("node:10", "build-stage", 5), ("nginx:1.17", "", 3)
    ]  # fmt: skip
    assert images_of(found) == ("node:10", "nginx:1.17")
    assert (target_of(found, ""), target_of(found, "BUILD-stage"), target_of(found, "0")) == (1, 0, 0)


def test_only_a_line_feed_ends_a_line() -> None:
    (stage,) = read_dockerfile("FROM a\r\nRUN <<E\nx\x0cy\u2028z\r\nE\nLABEL a=\x85b\n", {}).stages
    assert [step.heredocs[0].body for step in stage.steps[:1]] == ["x\x0cy\u2028z\n"]
    assert (len(stage.steps), stage.steps[1].text, stage.steps[1].line) == (2, "a=\x85b", 5)


def test_the_sign_of_continued_lines_is_read_behind_a_byte_order_mark() -> None:
    found = read_dockerfile("\ufeff# escape=`\nFROM a\nRUN b `\n c\n", {})
    assert (found.escape, found.stages[0].steps[0].text) == ("`", "b  c")


def test_only_the_images_of_needed_stages_are_needed() -> None:
    text = "FROM a AS x\nFROM b AS y\nFROM x\nCOPY --from=c:1 / /\nRUN --mount=type=bind,from=d,target=/d ls\n"
    text += "COPY --from=0 / /\n"
    assert images(text) == ("a", "c:1", "d")
    assert images(text, "y") == ("b",)
    assert images("FROM scratch\nCOPY --from=scratch / /\n") == ()


def test_the_last_stage_of_a_name_before_is_meant() -> None:
    text = "FROM a AS x\nFROM b AS x\nFROM c\nCOPY --from=x / /\n"
    assert images(text) == ("b", "c")
    assert images("FROM a AS a\nFROM a\n") == ("a",)


@pytest.mark.parametrize(
    ("head", "base", "args", "found"),
    [
        ("ARG V=10\n", "node:$V", {}, "node:10"),
        ("ARG V=10\n", "node:${V}-slim", {"V": "12"}, "node:12-slim"),
        ("ARG V\n", "node:${V:-9}", {}, "node:9"),
        ("ARG V\n", "node${V:+:$V}", {"V": "3"}, "node:3"),
        ('ARG R="local host" T=1\nARG N=${T}2\n', "n:$N", {}, "n:12"),
        ("", "node:${V-7}", {"V": "is no argument of this file"}, "node:7"),
    ],
)
def test_arguments_name_base_images(head: str, base: str, args: dict[str, str], found: str) -> None:
    assert images(f"{head}FROM {base} AS x\n", **args) == (found,)


def test_lines_are_joined_and_comments_between_them_left_out() -> None:
    text = "FROM a\nRUN one \\\n  # no\n\n  two \\\n three\nENV A=1\n"
    run, env = read_dockerfile(text, {}).stages[0].steps
    assert (run.line, run.text.split(), env.line) == (2, ["one", "two", "three"], 7)
    back = read_dockerfile("# escape=`\nFROM a\nRUN dir c:\\ `\n /b\n", {})
    assert (back.escape, back.stages[0].steps[0].text) == ("`", "dir c:\\  /b")


def test_here_documents_belong_to_their_instruction() -> None:
    text = "FROM a\nRUN <<EOF\nFROM b\nEOF\nCOPY <<-'A' <<B /x/\n\tone $x\n\tA\ntwo\nB\nRUN echo \"<<C\" $((1 <<D))\nUSER u\n"
    run, copy, echo, user = read_dockerfile(text, {}).stages[0].steps
    assert [(each.word, each.literal, each.body) for each in (*run.heredocs, *copy.heredocs)] == [
        ("EOF", False, "FROM b\n"), ("A", True, "one $x\n"), ("B", False, "two\n")
    ]  # fmt: skip
    assert (echo.heredocs, user.word, user.line) == ((), "USER", 11)


@pytest.mark.parametrize(
    ("text", "target", "line"),
    [
        ("", "", "the Dockerfile (Dockerfile) cannot be empty"),
        ("# only\n", "", "the Dockerfile (Dockerfile) cannot be empty"),
        ("ARG A=1\n", "", "no build stage in current context: Dockerfile has no FROM"),
        ("RUN x\nFROM a\n", "", "Dockerfile line 1: no build stage in current context: FROM comes before RUN"),
        ("FROM a\nFOO b\n", "", "dockerfile parse error on line 2 of Dockerfile: unknown instruction: FOO"),
        ("FROM a\nRUN\n", "", "dockerfile parse error on line 2 of Dockerfile: RUN requires at least one argument"),
        ("FROM a b\n", "", "Dockerfile line 1: FROM requires either one or three arguments"),
        ("ARG A\nFROM $A\n", "", "Dockerfile line 2: base name ($A) should not be blank"),
        ("FROM a\n", "nix", "failed to reach build target nix in Dockerfile"),
        ("FROM a\nRUN <<E\nx\n", "", "dockerfile parse error on line 2 of Dockerfile: unterminated heredoc E"),
        ("FROM a\nCOPY --from=$A / /\n", "", "Dockerfile line 2: variables are not replaced in from=$A"),
    ],
)
def test_what_is_wrong_is_one_line(text: str, target: str, line: str) -> None:
    with pytest.raises(BadInput) as caught:
        images(text, target)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_variables_may_be_written_as_they_stand() -> None:
    assert expand("\\$A $A ${B:-${A}x}", {"A": "1"}) == "$A 1 1x"
