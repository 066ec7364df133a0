"""The controller's flags: what is taken, and what is refused in one line."""

from __future__ import annotations

import pytest

from controller.config import duration_s, host_port, parse
from model.errors import BadInput

FILES = ("--etcd-cacert", "/ca.pem", "--etcd-cert", "/c.pem", "--etcd-key", "/c.key")


def test_defaults_and_an_etcd_of_three() -> None:
    assert parse(["--data-dir", "/d"]).etcd == ()
    config = parse(["--data-dir", "/d", "--etcd", "https://10.0.0.1:2379, https://10.0.0.2:2379", *FILES])
    assert config.etcd == ("https://10.0.0.1:2379", "https://10.0.0.2:2379")
    assert parse(["--data-dir", "/d", "--etcd", "http://127.0.0.1:2379"]).etcd == ("http://127.0.0.1:2379",)


def test_addresses_and_times() -> None:
    config = parse(["--data-dir", "x", "--api", "[::1]:7", "--advertise", "a", "--node-timeout", "1m"])
    assert (config.api, config.node_timeout_s, config.advertise) == (("::1", 7), 60.0, "a")
    assert config.data_dir.is_absolute()
    assert duration_s("-t", "500ms") == 0.5
    asking = parse(["--data-dir", "x", "--prometheus", "http://prometheus:9090/base", "--scale-every", "2s"])
    assert (asking.prometheus, asking.scale_every_s) == ("http://prometheus:9090/base", 2.0)
    assert host_port("-a", "127.0.0.1:0") == ("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--etcd", "http://10.0.0.1:2379"), "not encrypted"),
        (("--etcd", "http://10.0.0.1:2379", *FILES), "not encrypted"),
        (("--etcd", "https://10.0.0.1:2379"), "needs --etcd-cacert"),
        (("--etcd", "https://10.0.0.1:2379", *FILES[:2]), "needs --etcd-cacert"),
        (("--etcd", "10.0.0.1:2379", *FILES), "expected URLs"),
        (FILES, "go with --etcd"),
        (("--api", "7443"), "expected HOST:PORT"),
        (("--pool", "10.0.0.0/24"), "/20 or larger"),
        (("--pool", "10.0.0.1/8"), "host bits"),
        (("--node-timeout", "soon"), "expected a time"),
        (("--scale-every", "1ms"), "expected a time"),
        (("--prometheus", "prometheus:9090"), "--prometheus: found 'prometheus:9090', expected a URL such as http://"),
        (("--prometheus", "http://me:secret@prometheus:9090"), "--prometheus: found a name or password in it"),
    ],
)
def test_what_cannot_be_meant_is_refused(flags: tuple[str, ...], expected: str) -> None:
    with pytest.raises(BadInput, match=expected):
        parse(["--data-dir", "/d", *flags])
