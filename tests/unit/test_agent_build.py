"""A build as data: what the builder gets, what is made of its words, and the config that is kept."""

from __future__ import annotations

import json

import pytest

from agent.plan.build import (
    HERE_CONTEXT,
    Places,
    Wish,
    build_sight,
    build_words,
    confined,
    environment,
    hidden,
    rewritten,
    sight,
)
from agent.plan.build_words import Output, command_of, failure_of, tidied
from model.dockerfile import images_of, read_dockerfile
from model.errors import BadInput

PLACES = Places("/d/store", "/r", "/d/home", "/d/root", "/d/work/1")


def lines(text: str, **args: str) -> list[str]:
    dockerfile = read_dockerfile(text, args)
    return rewritten(dockerfile, images_of(dockerfile)).text.splitlines()[1:]


def test_what_the_builder_knows_stays() -> None:
    text = "ARG V=1\nFROM a:$V AS x\nRUN --mount=type=cache,target=/c make \\\n all\nCOPY --chown=1:1 --from=x a b\n"
    assert [" ".join(line.split()) for line in lines(text, V="2")] == [
        "ARG V=1", "FROM shoal-image-0 AS x", "RUN --mount=type=cache,target=/c make all",
        "COPY --chown=1:1 --from=shoal-image-1 a b",
    ]  # fmt: skip


def test_images_have_keys_that_no_stage_has() -> None:
    text = "FROM a AS a\nFROM a\nCOPY --from=a x /\nCOPY --chown=1 --from=b x /\n"
    text += "RUN --mount=from=b,target=/b --mount=from=a,target=/a x\n"
    assert lines(text) == [
        "FROM shoal-image-0 AS a", "FROM a", "COPY --from=a x /", "COPY --chown=1 --from=shoal-image-1 x /",
        "RUN --mount=from=shoal-image-1,target=/b --mount=from=a,target=/a x",
    ]  # fmt: skip


def test_here_documents_become_scripts_and_files() -> None:
    text = "FROM a\nRUN <<E\nset -e\necho \"$A\"\nE\nRUN cat <<'F' > /f\n$x\nF\n"
    text += "COPY --link --chmod=600 <<'G' <<H /d/\n$y\nG\nz\nH\n"
    made = rewritten(read_dockerfile(text, {}), ("a",))
    run, cat, copy = made.text.splitlines()[2:]
    assert json.loads(run.removeprefix("RUN ")) == ["/bin/sh", "-c", 'set -e\necho "$A"\n']
    assert json.loads(cat.removeprefix("RUN "))[2] == "cat <<'F' > /f\n$x\nF\n"
    assert copy == f"COPY --from={HERE_CONTEXT} --chmod=600 0/G 1/H /d/"
    assert made.files == (("0/G", "$y\n"), ("1/H", "z\n"))


def test_a_shell_that_was_chosen_runs_the_script() -> None:
    assert lines('FROM a\nSHELL ["/bin/bash", "-ec"]\nRUN <<E\nx\nE\n')[2] == 'RUN ["/bin/bash", "-ec", "x\\n"]'


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("RUN <<E\n#!/usr/bin/python3\nE", "names its program"),
        ("COPY <<E /x\n$HOME\nE", "are not replaced"),
        ("COPY a <<E /x/\nE", "write two of them"),
    ],
)
def test_what_cannot_be_rewritten_is_refused(step: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        lines(f"FROM a\n{step}\n")


def test_no_value_of_an_argument_stands_in_a_command_line() -> None:
    wish = Wish("x", (("PATH", "own"), ("TOKEN", "secret")), (("a", "b c"),), no_cache=True, bases=(("a:1", "12"),))
    words = build_words(PLACES, wish)
    assert "secret" not in " ".join(words)
    assert ("TOKEN" in words, "PATH=own" in words, "a=b c" in words) == (True, True, True)
    assert words[words.index("a:1=container-image://12") - 1] == "--build-context"
    assert words[-3:] == ["--file", "/d/work/1/given/Dockerfile", "/d/work/1/context"]
    assert hidden(dict(wish.args)) == {"TOKEN": "secret"}
    assert confined(words, build_sight(PLACES))[-len(words) :] == words


def test_the_builder_gets_nothing_of_the_agents_environment() -> None:
    found = environment(PLACES, "/bin")
    assert set(found) == {"PATH", "HOME", "TMPDIR", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "REGISTRY_AUTH_FILE"}
    assert all(value.startswith("/d/home") for key, value in found.items() if key != "PATH")


def test_the_step_that_runs_what_strangers_wrote_sees_little_and_writes_less() -> None:
    sees = build_sight(PLACES)
    assert sees.writable == ("/d/store", "/r", "/d/home/tmp", "/d/work/1/out")
    assert sees.readable == ("/d/home", "/d/work/1/context", "/d/work/1/given")
    assert "/d/a'b" not in confined(["x"], sight(PLACES, ["/d/a'b"]))[-3]


def told(*said: str, names: dict[str, str] | None = None) -> tuple[str, Output]:
    output = Output(names or {})
    return "".join(output.take(f"{line}\n".encode()) for line in said), output


def test_output_is_passed_on_with_names_for_ids() -> None:
    shown, _ = told("STEP 1/2: COPY --from=shoal-image-1 /shoal-image-1 /", names={"shoal-image-1": "b"})
    assert shown == "STEP 1/2: COPY --from=b /shoal-image-1 /\n"
    assert told("STEP 1/2: COPY --from=shoal-image-10 /", names={"shoal-image-1": "b"})[0].endswith("-10 /\n")
    shown, output = told("STEP 1/2: FROM 12ab", "STEP 2/2: RUN echo Error: none", "Error: none", "12ab", names={"12ab": "a:1"})
    assert shown == "STEP 1/2: FROM a:1\nSTEP 2/2: RUN echo Error: none\nError: none\n12ab\n"
    assert output.end(failed=False) == ""


@pytest.mark.parametrize(
    ("said", "text", "code"),
    [
        (["STEP 2/2: RUN exit 7", "subprocess exited with status 7", 'Error: building at STEP "RUN exit 7": exit status 7'],
         "The command '/bin/sh -c exit 7' returned a non-zero code: 7", 7),
        (['[1/2] STEP 2/2: RUN ["a", "b"]', 'Error: building at STEP "RUN a b": while running runtime: exit status 3'],
         "The command 'a b' returned a non-zero code: 3", 3),
        (["STEP 2/2: RUN kill", "subprocess exited on killed", 'Error: building at STEP "RUN kill": exit status 1'],
         "The command '/bin/sh -c kill' returned a non-zero code: 137", 137),
        (["STEP 2/2: COPY a b",
          'Error: building at STEP "COPY a b": checking on sources under "/x": copier: stat: "/a": no such file or directory'],
         "COPY failed: file not found in build context or excluded by .dockerignore: /a", 1),
        (["STEP 2/2: USER x", 'Error: building at STEP "RUN id": determining run uid: unknown'],
         "RUN id: determining run uid: unknown", 1),
        ([], "the builder ended with code 9", 1),
    ],
)  # fmt: skip
def test_a_failure_is_dockers_line_and_told_once(said: list[str], text: str, code: int) -> None:
    shown, output = told(*said)
    shown += output.end(failed=True)
    failure = failure_of(output, 9)
    assert (failure.text, failure.exit_code) == (text, code)
    assert "Error" not in shown
    assert "subprocess" not in shown


def test_a_character_that_comes_in_two_reads_is_one() -> None:
    output = Output({})
    said = "ümläut €\n".encode()
    assert "".join(output.take(said[at : at + 1]) for at in range(len(said))) == "ümläut €\n"
    assert output.take("€".encode()[:2]) == ""
    assert output.end(failed=False) == "\ufffd\n"


def test_a_line_that_does_not_end_is_passed_on_and_not_kept() -> None:
    output = Output({})
    shown = [output.take(b"x" * 60_000) for _ in range(50)]
    assert 60_000 * 50 - sum(map(len, shown)) < 130_000
    assert "".join(shown) + output.take(b"\nSTEP 1/1: FROM a\n") == f"{'x' * 60_000 * 50}\nSTEP 1/1: FROM a\n"


def test_a_last_line_without_an_end_is_shown() -> None:
    output = Output({})
    assert output.take("ü".encode()[:1]) == ""
    assert (output.take(b"ab"), output.end(failed=False)) == ("", "\ufffdab\n")


def test_commands_are_told_as_docker_tells_them() -> None:
    assert command_of("RUN --mount=type=cache,target=/c make") == "/bin/sh -c make"


def test_a_config_is_kept_without_what_was_random() -> None:
    raw = {
        "container": "12", "parent": "sha256:1",
        "config": {"Hostname": "12", "Entrypoint": [], "Cmd": ["x"], "Healthcheck": {"Test": ["CMD", "y"]}},
        "container_config": {"Hostname": "12", "Cmd": ["x"]},
        "history": [
            {"created_by": "base", "comment": "its own"},
            {"created_by": '/bin/sh -c ["/bin/sh","-c","one\\ntwo\\n"]', "comment": "FROM 12ab"},
            {"created_by": '/bin/sh -c #(nop) CMD ["x"] ', "comment": "FROM 34cd", "empty_layer": True},
        ],
    }  # fmt: skip
    found = json.loads(tidied(json.dumps(raw).encode()))
    assert found == {
        "config": {"Hostname": "", "Entrypoint": None, "Cmd": ["x"], "Healthcheck": {"Test": ["CMD", "y"]}},
        "container_config": {"Hostname": "", "Entrypoint": None, "Cmd": ["/bin/sh", "-c", '#(nop) CMD ["x"]']},
        "history": [
            {"created_by": "base", "comment": "its own"},
            {"created_by": "/bin/sh -c one\ntwo"},
            {"created_by": '/bin/sh -c #(nop) CMD ["x"]', "empty_layer": True},
        ],
    }
