"""The agent's command line, and signals by name."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trustme

from agent.core.perform import signal_number
from agent.core.tls import caller_role, role_in_subject
from agent.main import without_token
from agent.settings import parse


def test_every_flag() -> None:
    words = (
        "--data-dir /var/lib/x --run-dir /run/x --join https://a:7443,https://b:7443 --token T --name n1 --advertise 10.0.0.1"
        " --listen 127.0.0.1:9 --cpus 1.5 --memory 512M --label zone=a --label b=c=d --insecure-registry r:5000"
        " --registry-mirror docker.io=r:5000 --cgroup-parent lab/n1 --runtime runc --log-level debug --metrics 10.0.0.1:7446"
    )
    found = parse(words.split())
    assert (found.data_dir, found.join, found.memory_bytes) == (
        Path("/var/lib/x"),
        ("https://a:7443", "https://b:7443"),
        512 << 20,
    )
    assert (found.listen_host, found.listen_port, found.cpus) == ("127.0.0.1", 9, 1.5)
    assert (found.labels, found.mirrors) == ((("zone", "a"), ("b", "c=d")), (("docker.io", "r:5000"),))
    assert (found.runtime, found.cgroup_parent, found.insecure) == ("runc", "lab/n1", ("r:5000",))
    assert found.metrics == ("10.0.0.1", 7446)
    assert parse(["--data-dir", "/d"]).metrics is None


def test_the_ca_of_a_registry_is_a_file_with_a_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "ca.pem", tmp_path / "bad.pem"
    trustme.CA().cert_pem.write_to_path(good)
    bad.write_text("none")
    words = ["--data-dir", "/d", "--registry-ca"]
    assert parse([*words, f"r.example:5000={good}"]).registry_cas == (("r.example:5000", str(good)),)
    for file in (bad, tmp_path / "gone.pem"):
        with pytest.raises(SystemExit):
            parse([*words, f"r.example:5000={file}"])
        assert f"{file}: no CA certificate can be read there" in capsys.readouterr().err


def test_the_run_directory_follows_the_name() -> None:
    assert parse(["--data-dir", "/d", "--name", "n7"]).run_dir == Path("/run/shoal/n7")


@pytest.mark.parametrize(
    "words", ["--cpus 0", "--cpus x", "--memory 1Q", "--listen 7445", "--label x", "--runtime docker", "--advertise node1"]
)
def test_wrong_words_are_a_usage_error(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--data-dir", "/d", *words.split()])
    assert caught.value.code == 2
    assert words.split()[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("nonsense", 15), ("SIGUSR1", 10)],
)
def test_signals(name: str, number: int) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize(
    ("subject", "role"),
    [
        ("CN=c1,OU=controller", "controller"),
        ("OU=node,CN=n1", "node"),
        ("CN=n1", ""),
        ("CN=n1,OU=node,OU=controller", ""),
        ("CN=x\\,OU=controller,OU=node", ""),
        ("CN=x+OU=controller", "controller"),
    ],
)
def test_a_callers_role_is_the_only_ou_of_its_certificate(subject: str, role: str) -> None:
    assert role_in_subject(subject) == role
    assert caller_role({"x509_subject": [subject.encode()]}) == role


def test_a_caller_without_certificate_has_no_role() -> None:
    assert caller_role({}) == ""


def test_a_token_leaves_the_command_line() -> None:
    words = ["-m", "shoal", "agent", "--token", "SHOAL-1-a", "--name", "n1", "--token=SHOAL-1-b", "--data-dir", "/d"]
    assert without_token(words) == ["-m", "shoal", "agent", "--name", "n1", "--data-dir", "/d"]
