"""A build as data: the Dockerfile that buildah gets, its command lines, and the cgroup files it is put into.

Rules: pure. buildah 1.28 knows neither here-documents nor `--link`: a RUN's here-document becomes the script of an exec form, a
COPY's becomes a file of a build context of its own, `--link` only says how layers are made and goes. Base images are given by
id, so that buildah looks up no name. No argument of a build is ever logged: command lines are not either.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from model.dockerfile import Dockerfile, Heredoc, Instruction, Stage, stage_of
from model.errors import BadInput

HERE_CONTEXT: Final = "shoal-here-documents"
SHELL: Final = ("/bin/sh", "-c")
CAPABILITIES_DROPPED: Final = ("CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SYS_CHROOT")
CPU_WEIGHT_V2, CPU_SHARES_V1, OOM_SCORE = 20, 256, 500
"""A quarter of what a container gets by default when both want the processor; and what goes first when memory ends."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """`files` (path, content) are to lie in the folder of the context `HERE_CONTEXT`."""

    text: str
    files: tuple[tuple[str, str], ...]


def key_of(number: int) -> str:
    """What the image with that number is called in the Dockerfile that buildah gets: no stage has such a name."""
    return f"shoal-image-{number}"


def rewritten(dockerfile: Dockerfile, images: Sequence[str]) -> Rewritten:
    """As buildah takes it: an instruction a line, and each of the `images` by its key. Raises BadInput."""
    lines = [f"# escape={dockerfile.escape}"] + [_plain(each) for each in dockerfile.head]
    files: list[tuple[str, str]] = []
    keys = {name: key_of(number) for number, name in enumerate(images)}
    for number, stage in enumerate(dockerfile.stages):
        own = {name: key for name, key in keys.items() if stage_of(dockerfile, name, number) is None}
        lines += _stage(stage, own, files)
    return Rewritten("".join(f"{line}\n" for line in lines), tuple(files))


def _stage(stage: Stage, keys: Mapping[str, str], files: list[tuple[str, str]]) -> list[str]:
    """`keys` of the names that are images here; others are stages."""
    name = f" AS {stage.name}" if stage.name else ""
    lines = [f"FROM {_flags(stage.flags)}{keys.get(stage.base, stage.base)}{name}"]
    shell: Sequence[str] = SHELL
    for step in (_keyed(step, keys) for step in stage.steps):
        if step.word == "SHELL":
            shell = _listed(step.text) or shell
        if step.heredocs:
            lines.append(_run(step, shell) if step.word == "RUN" else _copy(step, files))
        else:
            lines.append(_plain(step))
    return lines


def _keyed(step: Instruction, keys: Mapping[str, str]) -> Instruction:
    flags = []
    for name, value in step.flags:
        if name == "from":
            value = keys.get(value, value)
        elif name == "mount" and step.word == "RUN":
            fields = (field.partition("=") for field in value.split(","))
            value = ",".join(f"{key}{sign}{keys.get(text, text) if key == 'from' else text}" for key, sign, text in fields)
        flags.append((name, value))
    return replace(step, flags=tuple(flags))


def _plain(step: Instruction) -> str:
    flags = [flag for flag in step.flags if flag[0] != "link" or step.word not in ("COPY", "ADD")]
    return f"{step.word} {_flags(flags)}{step.text}"


def _flags(flags: Sequence[tuple[str, str]]) -> str:
    return "".join(f"--{name}={value} " if value else f"--{name} " for name, value in flags)


def _run(step: Instruction, shell: Sequence[str]) -> str:
    """`RUN <<EOF` is the body as a script; `RUN cmd <<EOF` is left to the shell, which knows here-documents itself."""
    first = step.heredocs[0]
    if step.text.startswith("<<") and len(step.text.split()) == len(step.heredocs) == 1:
        if first.body.startswith("#!"):
            raise BadInput(f"Dockerfile line {step.line}: RUN with a script that names its program (#!) is not supported: "
                           "COPY the script, then RUN it")  # fmt: skip
        script = first.body
    else:
        script = "\n".join([step.text, *(f"{each.body}{each.word}" for each in step.heredocs), ""])
    return f"RUN {_flags(step.flags)}{json.dumps([*shell, script])}"


def _copy(step: Instruction, files: list[tuple[str, str]]) -> str:
    """The bodies are files of a context of their own, named like the here-documents."""
    words = step.text.split()
    if len(words) != len(step.heredocs) + 1:
        raise BadInput(f"Dockerfile line {step.line}: here-documents and files in one {step.word}: write two of them")
    flags = [flag for flag in step.flags if flag[0] != "link"]
    sources = []
    for each in step.heredocs:
        _check_literal(step, each)
        path = f"{len(files)}/{each.word}"
        files.append((path, each.body))
        sources.append(path)
    return f"COPY --from={HERE_CONTEXT} {_flags(flags)}{' '.join([*sources, words[-1]])}"


def _check_literal(step: Instruction, heredoc: Heredoc) -> None:
    if not heredoc.literal and ("$" in heredoc.body or "\\" in heredoc.body):
        raise BadInput(
            f"Dockerfile line {step.line}: variables in a here-document of {step.word} are not replaced by shoal: "
            f"write <<'{heredoc.word}' for it as it stands, or RUN cat > FILE <<{heredoc.word}"
        )


def _listed(text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text)
    except ValueError:
        return ()
    return tuple(map(str, found)) if isinstance(found, list) else ()


# command lines


@dataclass(frozen=True, slots=True)
class Places:
    """Paths of a node's builds: `store` and `run` are buildah's, shared by all builds; `home` holds its settings, `root` is
    empty; `work` is of one build."""

    store: str
    run: str
    home: str
    root: str
    work: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be built. `bases`: image ids (digits only) by the keys in the Dockerfile."""

    target: str = ""
    args: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    no_cache: bool = False
    bases: tuple[tuple[str, str], ...] = ()


def environment(places: Places, path: str) -> dict[str, str]:
    """All of buildah's environment: nothing of the agent's own."""
    return {
        "PATH": path,
        "HOME": places.home,
        "TMPDIR": f"{places.home}/tmp",
        "CONTAINERS_CONF": f"{places.home}/containers.conf",
        "CONTAINERS_STORAGE_CONF": f"{places.home}/storage.conf",
        "REGISTRY_AUTH_FILE": f"{places.home}/auth.json",
    }


SETTINGS: Final[Mapping[str, str]] = {
    "containers.conf": "[containers]\n",
    "storage.conf": '[storage]\ndriver = "overlay"\n',
    "auth.json": "{}",
    "registries.conf": "unqualified-search-registries = []\n",
    "policy.json": '{"default":[{"type":"insecureAcceptAnything"}]}',
    "ignore": "",
}
"""Files of `home`: no registry, no credential, nothing of the machine's own settings."""


_OWN: Final = re.compile(
    r"PATH|HOME|TMPDIR|TZ|LANG|IFS|PWD|OLDPWD|OPTIND|PS4|"
    r"(REGISTRY_AUTH|CONTAINERS|STORAGE|BUILDAH|XDG|LC|LD|GO|SHOAL)_?.*|[^A-Za-z_].*|.*\W.*"
)
"""Names that mean something to the builder's own process or to a shell, or are none."""


def hidden(args: Mapping[str, str]) -> dict[str, str]:
    """Arguments that go into the builder's environment: a command line can be read by everybody on the machine."""
    return {key: value for key, value in args.items() if not _OWN.fullmatch(key)}


def buildah(places: Places, *words: str) -> list[str]:
    """`policy.json` is an option of those subcommands that take images in or out."""
    home = places.home
    return [
        "buildah", "--root", places.store, "--runroot", places.run, "--storage-driver", "overlay",
        "--registries-conf", f"{home}/registries.conf", "--registries-conf-dir", f"{home}/none", *words,
    ]  # fmt: skip


def build_words(places: Places, wish: Wish) -> list[str]:
    words = [
        "build", "--isolation", "chroot", "--layers", "--format", "docker", "--pull-never", "--http-proxy=false",
        "--identity-label=false", "--cap-drop", ",".join(CAPABILITIES_DROPPED), "--ignorefile", f"{places.home}/ignore",
        "--signature-policy", f"{places.home}/policy.json", "--iidfile", f"{places.work}/out/id", "--force-rm",
        "--build-context", f"{HERE_CONTEXT}={places.work}/given/here",
    ]  # fmt: skip
    words += [word for name, image in wish.bases for word in ("--build-context", f"{name}=container-image://{image}")]
    args = [key if key in hidden(dict(wish.args)) else f"{key}={value}" for key, value in wish.args]
    words += [word for each in args for word in ("--build-arg", each)]
    words += [word for key, value in wish.labels for word in ("--label", f"{key}={value}")]
    words += ["--no-cache"] if wish.no_cache else []
    words += ["--target", wish.target] if wish.target else []
    return buildah(places, *words, "--file", f"{places.work}/given/Dockerfile", f"{places.work}/context")


DEVICES: Final = ("full", "null", "random", "tty", "urandom", "zero")
PROGRAMS: Final = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
ETC: Final = ("group", "hosts", "ld.so.cache", "localtime", "nsswitch.conf", "passwd", "resolv.conf")
"""With /etc/ssl all that a build sees of the machine's /etc, and only by a hole in the builder."""
_OUTSIDE: Final = "\n".join(
    [
        'for SHOAL_FILE in $SHOAL_CGROUPS; do echo $$ > "$SHOAL_FILE" || exit 125; done',
        f"echo {OOM_SCORE} > /proc/self/oom_score_adj",
        "unset SHOAL_CGROUPS",
        'exec "$@"',
    ]
)


@dataclass(frozen=True, slots=True)
class Sight:
    """What of the machine is seen besides its programs. `root`: an empty folder to put the new root on."""

    root: str
    readable: tuple[str, ...]
    writable: tuple[str, ...]


def sight(places: Places, readable: Sequence[str] = (), writable: Sequence[str] = ()) -> Sight:
    """The builder's own folders, and what one step needs."""
    own = (places.store, places.run, f"{places.home}/tmp")
    return Sight(places.root, (places.home, *readable), (*own, *writable))


def build_sight(places: Places) -> Sight:
    """Of the step that runs what strangers wrote."""
    return sight(places, [f"{places.work}/context", f"{places.work}/given"], [f"{places.work}/out"])


def confined(words: Sequence[str], sees: Sight) -> list[str]:
    """In the cgroups that SHOAL_CGROUPS names, with a root, mounts and process numbers of its own: all of it goes when its
    first process goes, and that goes when who started it goes. No device, no cgroup and no file of anybody is seen. Variables
    of the scripts have names that no argument of a build comes under: what a shell finds in its environment it passes on."""
    return [
        "sh", "-c", _OUTSIDE, "sh",
        "setpriv", "--pdeathsig", "KILL",
        "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=KILL",
        "sh", "-c", _inside(sees), "sh", *words,
    ]  # fmt: skip


def _inside(sees: Sight) -> str:
    """buildah 1.28 follows links in the sources of RUN --mount wherever they lead (CVE-2024-1753): so they lead nowhere. Few
    programs are run for it: each costs a millisecond."""
    named = " ".join(shlex.quote(f".{path}") for path in (*sees.readable, *sees.writable))
    lines = [
        "set -e",
        f"mount -t tmpfs -o mode=755,size=64m,nosuid shoal-build {shlex.quote(sees.root)}",
        f"cd {shlex.quote(sees.root)}",
        f"mkdir -p -m 755 dev/pts dev/shm etc old proc run sys tmp usr var/lib/containers var/tmp {named}",
        "chmod 1777 tmp var/tmp",
        "mount -o rbind,ro /usr usr",
        "SHOAL_LINKS=",
        f"for SHOAL_N in {' '.join(PROGRAMS)}; do",
        '  if [ -L /$SHOAL_N ]; then SHOAL_LINKS="$SHOAL_LINKS /$SHOAL_N"',
        "  elif [ -d /$SHOAL_N ]; then mkdir $SHOAL_N; mount -o rbind,ro /$SHOAL_N $SHOAL_N; fi",
        "done",
        '[ -z "$SHOAL_LINKS" ] || cp -P $SHOAL_LINKS .',
        "SHOAL_FILES=",
        f'for SHOAL_N in {" ".join(ETC)}; do [ ! -e /etc/$SHOAL_N ] || SHOAL_FILES="$SHOAL_FILES /etc/$SHOAL_N"; done',
        "cp -L $SHOAL_FILES etc/",
        "if [ -d /etc/ssl ]; then mkdir etc/ssl; mount -o bind,ro /etc/ssl etc/ssl; fi",
        *(f"mount -o bind,ro {shlex.quote(path)} {shlex.quote(f'.{path}')}" for path in sees.readable),
        *(f"mount --bind {shlex.quote(path)} {shlex.quote(f'.{path}')}" for path in sees.writable),
        f"cp -R --preserve=mode {' '.join(f'/dev/{name}' for name in DEVICES)} dev/",
        "mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts",
        "mount -t tmpfs -o mode=1777,size=64m,nosuid,nodev shoal-build dev/shm",
        "ln -s pts/ptmx dev/ptmx",
        "ln -s /proc/self/fd dev/fd",
        "for SHOAL_N in 0:stdin 1:stdout 2:stderr; do ln -s fd/${SHOAL_N%:*} dev/${SHOAL_N#*:}; done",
        "mount -t proc -o nosuid,nodev,noexec proc proc",
        "mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys",
        "pivot_root . old",
        "cd /",
        "umount -l /old",
        'exec "$@"',
    ]
    return "\n".join(lines)
