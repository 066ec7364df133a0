"""The HTTP API against a real controller: who gets in, joining, errors, blocking queries, and what the description promises."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import subprocess
import threading
import time
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from controller.certificates import Authority, KeyPair, read_peer, sans_of
from model.pki_names import CONTROLLER_SERVER_NAME
from tests.contract.controller_harness import INFO, Client, ControllerProcess, new_csr, service_body

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]


def code_of(answer: Any) -> str:
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"code", "message", "problems"}
    assert "\n" not in answer["error"]["message"]
    return str(answer["error"]["code"])


# ---- who gets in


def test_without_a_certificate_only_the_three_open_doors(controller: ControllerProcess) -> None:
    anonymous = controller.anonymous()
    assert anonymous.get("/healthz") == (200, "ok")
    status, answer = anonymous.get("/v1/ca")
    assert (status, answer["ca"]) == (200, controller.context()["ca"])
    for path in ("/v1/version", "/v1/nodes", "/v1/openapi.json", "/metrics", "/v1/nonsense"):
        status, answer = anonymous.get(path)
        assert (status, code_of(answer)) == (403, "unauthorized"), path


def test_a_node_certificate_is_no_operator(controller: ControllerProcess, operator: Client) -> None:
    joined, key = join(controller, operator, "intruder")
    node = Client(controller.context()["apis"][0], joined["ca"], joined["certificate"], key.decode())
    for method, path in (("GET", "/v1/nodes"), ("POST", "/v1/tokens"), ("DELETE", "/v1/nodes/intruder")):
        status, answer = node.request(method, path, {} if method == "POST" else None)
        assert (status, code_of(answer)) == (403, "unauthorized")
    assert node.get("/healthz") == (200, "ok")


def test_a_registry_gets_a_certificate_and_no_daemons_name(controller: ControllerProcess, operator: Client) -> None:
    body = {"csr": new_csr("store")[0], "name": "store", "names": ["localhost", "10.0.0.1"]}
    made = operator.ok("POST", "/v1/registry-certificates", body)
    assert made["ca"] == controller.context()["ca"]
    assert sans_of(x509.load_pem_x509_certificate(made["certificate"].encode())) == {"localhost", "10.0.0.1"}
    for name in ("controller.shoal", "n1.node.shoal"):
        status, answer = operator.request("POST", "/v1/registry-certificates", {**body, "names": ["localhost", name]})
        assert (status, code_of(answer)) == (400, "bad_input")
    status, answer = operator.request("POST", "/v1/registry-certificates", {**body, "csr": "none"})
    assert (status, code_of(answer)) == (400, "bad_input")
    assert controller.anonymous().request("POST", "/v1/registry-certificates", body)[0] == 403


def test_a_certificate_of_another_ca_is_refused_by_tls(controller: ControllerProcess) -> None:
    from controller.certificates import new_authority

    stranger = Authority(new_authority("stranger")).issue("admin", "operator")
    context = controller.context()
    client = Client(context["apis"][0], context["ca"], stranger.certificate.decode(), stranger.key.decode())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        client.get("/v1/nodes")


def test_no_tls_no_answer(controller: ControllerProcess) -> None:
    url = controller.operator().url
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"200" not in plain.recv(1024)


# ---- joining


def join(controller: ControllerProcess, operator: Client, name: str, token: str = "") -> tuple[Any, bytes]:
    token = token or operator.ok("POST", "/v1/tokens", {})["token"]
    csr, key = new_csr(name)
    return controller.anonymous().ok("POST", "/v1/join", {"token": token, "csr": csr, "name": name, "info": INFO}), key


def test_joining_pins_the_ca_and_names_the_node(controller: ControllerProcess, operator: Client) -> None:
    token = operator.ok("POST", "/v1/tokens", {"role": "manager"})["token"]
    joined, _ = join(controller, operator, "pinned", token)
    ca = x509.load_pem_x509_certificate(joined["ca"].encode())
    assert token.split("-")[2] == hashlib.sha256(ca.public_bytes(serialization.Encoding.DER)).hexdigest()
    certificate = x509.load_pem_x509_certificate(joined["certificate"].encode())
    certificate.verify_directly_issued_by(ca)
    assert (read_peer(certificate).name, read_peer(certificate).role) == ("pinned", "node")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["pinned.node.shoal", "agent.shoal"]
    row = operator.ok("GET", "/v1/nodes/pinned")
    assert (row["role"], row["id"], row["state"], row["cpus"]) == ("manager", joined["node_id"], "unreachable", 2.0)


@pytest.mark.parametrize("name", [CONTROLLER_SERVER_NAME, "localhost", "127.0.0.1"])
def test_a_nodes_certificate_passes_for_no_controller(controller: ControllerProcess, operator: Client, name: str) -> None:
    joined, _ = join(controller, operator, name)
    certificate = x509.load_pem_x509_certificate(joined["certificate"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(row.value) for row in names] == [f"{name}.node.shoal", "agent.shoal"]


@pytest.mark.parametrize("spoil", ["secret", "id", "ca", "shape"])
def test_a_wrong_token_does_not_say_what_is_wrong(controller: ControllerProcess, operator: Client, spoil: str) -> None:
    parts = operator.ok("POST", "/v1/tokens", {})["token"].split("-")
    wrong = {"secret": (4, "0" * 48), "id": (3, "0" * 12), "ca": (2, "0" * 64), "shape": (0, "X")}[spoil]
    parts[wrong[0]] = wrong[1]
    csr, _ = new_csr("n9")
    body = {"token": "-".join(parts), "csr": csr, "name": "n9"}
    status, answer = controller.anonymous().request("POST", "/v1/join", body)
    assert (status, code_of(answer)) == (403, "unauthorized")
    assert "wrong or has expired" in answer["error"]["message"]
    assert operator.get("/v1/nodes/n9")[0] == 404


def test_a_token_expires(controller: ControllerProcess, operator: Client) -> None:
    token = operator.ok("POST", "/v1/tokens", {"ttl_s": 0.001})["token"]
    csr, _ = new_csr("late")
    status, _ = controller.anonymous().request("POST", "/v1/join", {"token": token, "csr": csr, "name": "late"})
    assert status == 403


def test_secrets_stand_in_no_log(controller: ControllerProcess, operator: Client) -> None:
    token = operator.ok("POST", "/v1/tokens", {})["token"]
    join(controller, operator, "quiet", token)
    assert token.split("-")[-1] not in controller.log()
    assert "PRIVATE KEY" not in controller.log()


def test_a_bad_name_or_csr_is_bad_input(controller: ControllerProcess, operator: Client) -> None:
    token = operator.ok("POST", "/v1/tokens", {})["token"]
    csr, _ = new_csr("x")
    for body in ({"token": token, "csr": csr, "name": "../x"}, {"token": token, "csr": "no", "name": "fine"}):
        status, answer = controller.anonymous().request("POST", "/v1/join", body)
        assert (status, code_of(answer)) == (400, "bad_input")


def test_an_anonymous_body_is_limited(controller: ControllerProcess) -> None:
    status, answer = controller.anonymous().request("POST", "/v1/join", {"token": "x" * 100_000, "csr": "", "name": "n"})
    assert (status, code_of(answer)) == (413, "too_large")


# ---- the etcd child


def test_the_own_etcd_takes_only_the_controllers_certificate(controller: ControllerProcess) -> None:
    pki = controller.folder / "pki"
    port = _etcd_port(controller)
    assert _handshake(port, pki / "etcd-ca.pem", pki / "etcd-client.pem", pki / "etcd-client.key")
    for stem in ("controller", "operator"):
        assert not _handshake(port, pki / "etcd-ca.pem", pki / f"{stem}.pem", pki / f"{stem}.key"), stem
    assert not _handshake(port, pki / "etcd-ca.pem", None, None)


def _etcd_port(controller: ControllerProcess) -> int:
    from pathlib import Path

    pid = (controller.folder / "etcd" / "etcd.pid").read_text().split()[0].strip('{},":') or "0"
    number = pid if pid.isdigit() else str(json.loads((controller.folder / "etcd" / "etcd.pid").read_text())["pid"])
    words = Path(f"/proc/{number}/cmdline").read_text().split("\0")
    (url,) = (word.partition("=")[2] for word in words if word.startswith("--listen-client-urls="))
    return int(url.rpartition(":")[2])


def _handshake(port: int, ca: Any, certificate: Any, key: Any) -> bool:
    """Whether etcd speaks with the owner of the certificate (TLS 1.3 tells a refusal only with the first read)."""
    context = ssl.create_default_context(cafile=str(ca))
    if certificate:
        context.load_cert_chain(certificate, key)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
        ):
            tls.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return b"etcdserver" in tls.recv(4096)
    except (ssl.SSLError, ConnectionError):
        return False


# ---- errors


def test_every_error_has_the_one_shape(operator: Client) -> None:
    for method, path, body, expected in (
        ("GET", "/v1/nonsense", None, (404, "not_found")),
        ("GET", "/v1/services/none", None, (404, "not_found")),
        ("PUT", "/v1/services", {}, (405, "method")),
        ("GET", "/v1/services?no=1", None, (400, "bad_input")),
        ("GET", "/v1/services?index=x", None, (400, "bad_input")),
        ("POST", "/v1/services", {"name": "x"}, (400, "bad_input")),
        ("POST", "/v1/services", b"{", (400, "bad_input")),
        ("POST", "/v1/services", service_body("bad name"), (400, "bad_input")),
        ("POST", "/v1/services/none/scale", {"replicas": -1}, (400, "bad_input")),
        ("POST", "/v1/services/none/scale", {"replicas": 1}, (404, "not_found")),
        ("PATCH", "/v1/nodes/none", {"availability": "drain"}, (404, "not_found")),
        ("POST", "/v1/tokens", {"nonsense": 1}, (400, "bad_input")),
        ("GET", "/v1/replicas/none.1/logs", None, (404, "not_found")),
        ("DELETE", "/v1/volumes/none", None, (404, "not_found")),
    ):
        status, answer = operator.request(method, path, body)
        assert (status, code_of(answer)) == expected, (method, path)


def test_several_problems_are_all_told(operator: Client) -> None:
    body = {"name": 5, "container": {"image": "x", "init": "maybe"}, "replicas": "many"}
    status, answer = operator.request("POST", "/v1/services", body)
    assert status == 400
    assert len(answer["error"]["problems"]) == 3
    assert any(line.startswith("body.container.init:") for line in answer["error"]["problems"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"replicass": 2}, "body.replicass: there is no such field"),
        ({"placement": {"constraint": []}}, "body.placement.constraint: there is no such field"),
        ({"container": {"image": "Busy Box"}}, "image reference"),
        ({"container": {"image": "x", "networks": [{"network": "nowhere"}]}}, "there is no network nowhere"),
        ({"container": {"image": "x", "mounts": [{"type": "bind", "target": "/a", "source": "b"}]}}, "no absolute path"),
        ({"placement": {"constraints": ["node.rol==x"]}}, "unknown key 'node.rol'"),
        ({"placement": {"node": "nowhere"}}, "no node is called nowhere"),
        ({"replicas": "2"}, "body.replicas"),
        ({"replicas": -1}, "replicas -1: expected a number from 0"),
        ({"stack": "shop"}, "apply the stack"),
    ],
)
def test_a_service_that_cannot_be_is_refused_and_not_stored(operator: Client, change: dict[str, Any], expected: str) -> None:
    status, answer = operator.request("POST", "/v1/services", service_body("refused") | change)
    assert (status, code_of(answer)) == (400, "bad_input")
    assert expected in answer["error"]["message"]
    assert operator.get("/v1/services/refused")[0] == 404


@pytest.mark.parametrize(
    ("body", "replicas", "expected"),
    [
        ({"mode": "global"}, 2, "is global: it has one replica on every node"),
        ({"single": True}, 2, "is a single container"),
        ({}, 999_999, "999,999 replicas: a cluster of"),
        ({}, -1, "-1: expected a number from 0 to 1,000,000"),
        ({}, 10**12, "1000000000000: expected a number from 0"),
    ],
)
def test_what_cannot_be_scaled_so_says_why(operator: Client, body: dict[str, Any], replicas: int, expected: str) -> None:
    operator.ok("POST", "/v1/services", service_body("odd", **body))
    try:
        status, answer = operator.request("POST", "/v1/services/odd/scale", {"replicas": replicas})
        assert (status, code_of(answer)) == (400, "bad_input")
        assert expected in answer["error"]["message"]
    finally:
        operator.ok("DELETE", "/v1/services/odd")


# ---- services, nodes


def test_a_service_is_made_once_scaled_stopped_and_removed(operator: Client) -> None:
    made = operator.ok("POST", "/v1/services", service_body("once", replicas=2))
    assert (made["wanted"], made["running"], made["scale"], made["version"]) == (2, 0, 2, 1)
    status, answer = operator.request("POST", "/v1/services", service_body("once"))
    assert (status, code_of(answer)) == (409, "conflict")
    scaled = operator.ok("POST", "/v1/services/once/scale", {"replicas": 5})
    assert (scaled["before"], scaled["replicas"]) == (2, 5)
    assert operator.ok("POST", "/v1/services/once/stop")["wanted"] == 0
    assert operator.ok("POST", "/v1/services/once/start")["wanted"] == 5
    operator.ok("DELETE", "/v1/services/once")
    assert operator.get("/v1/services/once")[0] == 404


def test_what_waits_says_why(operator: Client) -> None:
    operator.ok("POST", "/v1/services", service_body("waiter"))
    try:
        deadline = time.monotonic() + 20
        while True:
            rows = operator.ok("GET", "/v1/replicas?service=waiter&index=1&wait=1")
            if rows and rows[0]["message"] != "not decided yet":
                break
            assert time.monotonic() < deadline
        assert (rows[0]["state"], rows[0]["node"], rows[0]["slot"]) == ("pending", "", 1)
        found = operator.ok("GET", "/v1/services/waiter/explain")
        assert "0 of 1 running" in found["sentence"]
        assert any(rows[0]["message"] in line for line in found["lines"])
    finally:
        operator.ok("DELETE", "/v1/services/waiter")


def test_labels_and_availability(controller: ControllerProcess, operator: Client) -> None:
    join(controller, operator, "labelled")
    row = operator.ok("PATCH", "/v1/nodes/labelled", {"labels": {"zone": "a", "disk": "ssd"}, "availability": "pause"})
    assert (row["labels"], row["availability"]) == ({"zone": "a", "disk": "ssd"}, "pause")
    row = operator.ok("PATCH", "/v1/nodes/labelled", {"labels": {"disk": None}})
    assert (row["labels"], row["availability"]) == ({"zone": "a"}, "pause")
    assert operator.ok("PATCH", "/v1/nodes/labelled", {"generic": {"gpu": 2, "fpga": 1}})["generic"] == {"fpga": 1, "gpu": 2}
    row = operator.ok("PATCH", "/v1/nodes/labelled", {"generic": {"fpga": None}})
    assert (row["generic"], row["labels"]) == ({"gpu": 2}, {"zone": "a"})
    for field, name, value in (("generic", "GPU!", 1), ("generic", "foo-", 1), ("labels", "-foo", "a")):
        status, answer = operator.request("PATCH", "/v1/nodes/labelled", {field: {name: value}})
        assert status == 400
        assert answer["error"]["message"].startswith(f"body.{field}: found {name!r}, expected letters, digits")
        operator.ok("PATCH", "/v1/nodes/labelled", {field: {name: None}})


# ---- reads


def test_a_blocking_query_answers_when_something_changed(operator: Client) -> None:
    operator.ok("GET", "/v1/services")
    index = int(operator.headers["x-shoal-index"])
    found: list[Any] = []
    other = Client(operator.url.geturl(), operator.ca, operator.certificate, operator.key)
    thread = threading.Thread(target=lambda: found.append(other.ok("GET", f"/v1/services?index={index}&wait=30")))
    started = time.monotonic()
    thread.start()
    operator.ok("POST", "/v1/services", service_body("blocked"))
    thread.join(20)
    assert time.monotonic() - started < 15
    assert [row["name"] for row in found[0]] == ["blocked"]
    operator.ok("DELETE", "/v1/services/blocked")


def test_an_unchanged_answer_need_not_be_sent_again(operator: Client) -> None:
    operator.ok("GET", "/v1/networks")
    status, _ = operator.request("GET", "/v1/networks", None, **{"If-None-Match": operator.headers["etag"]})
    assert status == 304


def test_version_and_metrics(controller: ControllerProcess, operator: Client) -> None:
    found = operator.ok("GET", "/v1/version")
    assert (found["api"], found["controller"], found["leader"], found["epoch"]) == ("v1", "c1", "c1", 1)
    assert len(found["cluster_id"]) == 16
    status, text = operator.get("/metrics")
    assert status == 200
    assert "shoal_leader 1.0" in text
    assert 'shoal_decisions_total{loop="services"}' in text
    said = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")


def test_who_may_read_metrics_may_do_nothing_else(controller: ControllerProcess, operator: Client) -> None:
    files = controller.folder / "prometheus"
    ca, certificate, key = ((files / name).read_text() for name in ("ca.pem", "metrics.pem", "metrics.key"))
    reader = Client(controller.context()["apis"][0], ca, certificate, key)
    assert reader.get("/metrics")[0] == 200
    assert reader.get("/v1/discovery/prometheus?kind=controllers") == (
        200, [{"targets": [reader.url.netloc], "labels": {"controller": "c1"}}],
    )  # fmt: skip
    for method, path in (("GET", "/v1/nodes"), ("GET", "/v1/services"), ("POST", "/v1/tokens"), ("DELETE", "/v1/nodes/n1")):
        status, answer = reader.request(method, path, None if method == "GET" else {})
        assert (status, answer["error"]["message"]) == (403, "metrics: a metrics certificate may not use this API"), path
    assert operator.get("/v1/discovery/prometheus?kind=nonsense")[0] == 400


def test_events_tell_of_the_joining(controller: ControllerProcess, operator: Client) -> None:
    join(controller, operator, "eventful")
    deadline = time.monotonic() + 20
    while True:
        _, text = operator.get("/v1/events?about=node/eventful")
        rows = [json.loads(line) for line in text.splitlines()]
        if rows:
            break
        assert time.monotonic() < deadline
    assert rows[0]["sentence"] == "node eventful joined the cluster"


# ---- the description


async def test_the_description_names_every_route(operator: Client) -> None:
    from controller.api.routes import ROUTES

    description = await asyncio.to_thread(operator.ok, "GET", "/v1/openapi.json")
    assert description["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, row in description["paths"].items() for method in row}
    assert described == {(route.method, route.path.replace(":path}", "}")) for route in ROUTES}
    text = json.dumps(description)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in description["components"]["schemas"], name


def test_key_pair_hides_its_key() -> None:
    assert "secret" not in repr(KeyPair(b"public", b"secret"))
