"""An agent's metrics: who may read them, that they are what happened, and that promtool has nothing against them."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.core.clock import RealClock, RealRandom
from agent.core.dialling import dialling
from agent.core.journal import Journal
from agent.core.metrics import AgentMetrics, WatchedReporter, watched
from agent.core.metrics_page import BalancedTotals, Page
from agent.core.metrics_server import MetricsServer, is_loopback, place_of, tls_context
from agent.core.runner import Runner
from agent.core.session import NodeIdentity, SessionClient
from agent.core.tls import NodePki
from agent.core.wire import desired_message
from agent.network.balance_port import Traffic
from agent.plan.desired import merge
from agent.plan.life import begin
from agent.plan.records import ReplicaId
from model.autoscale import MetricsPort
from model.documents import NodeInfo
from model.errors import BadInput, NotFound
from model.pki_names import AGENT_METRICS_NAME
from tests.contract.agent_support import Agent, Dispatcher, Keys, desired, web

pytestmark = pytest.mark.contract
INFO = NodeInfo(cpus=2.0, memory_bytes=1 << 30)


@pytest.fixture(scope="module")
def keys() -> Keys:
    made = Keys.make()
    pair = made.authority.issue("n1", "node", [AGENT_METRICS_NAME])
    return replace(made, node=NodePki(made.authority.pem, pair.certificate, pair.key))


def of_role(keys: Keys, role: str) -> NodePki:
    pair = keys.authority.issue(role, role, [])
    return NodePki(keys.authority.pem, pair.certificate, pair.key)


@dataclass
class Watched:
    agent: Agent
    metrics: AgentMetrics
    port: int


@asynccontextmanager
async def watched_agent(path: Path, keys: Keys, plain: bool = False) -> AsyncIterator[Watched]:
    """An agent with one running replica that tells its metrics."""
    agent, metrics = Agent(path), AgentMetrics()
    agent.reporter = WatchedReporter(metrics, agent.core.lives.get)
    agent.runner = Runner(agent.core, agent.ports, Journal(path), RealClock(), agent.reporter)
    (path / "pki").mkdir()
    for name, data in (("ca.pem", keys.node.ca), ("node.pem", keys.node.certificate), ("node.key", keys.node.key)):
        (path / "pki" / name).write_bytes(data)
    server = MetricsServer(Page(metrics, agent.runner, INFO, lambda: 4096).text, agent.runner)
    port = await server.start("127.0.0.1", 0, None if plain else tls_context(path / "pki"))
    try:
        async with agent.on():
            agent.runner.desire(merge(agent.core.desired, desired_message(desired(1, 1, web()).desired)))
            await agent.reached(lambda: any(row.state == "running" for row in agent.core.statuses()))
            yield Watched(agent, metrics, port)
    finally:
        await server.close()


def client_context(path: Path, who: NodePki) -> ssl.SSLContext:
    file = path / "client.pem"
    file.write_bytes(who.certificate + who.key)
    context = ssl.create_default_context(cadata=who.ca.decode())
    context.load_cert_chain(file)
    return context


async def ask(port: int, request: str, context: ssl.SSLContext | None = None) -> str:
    """All that comes back until the server closes."""
    name = AGENT_METRICS_NAME if context is not None else None
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        try:
            writer.write(request.encode())
            return (await reader.read()).decode()
        finally:
            writer.close()


def promtool(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)


def get(path: str, more: str = "Connection: close\r\n") -> str:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n"


@pytest.mark.parametrize("role", ["metrics", "operator", "controller"])
async def test_readers_get_in_by_the_name_all_agents_share(tmp_path: Path, keys: Keys, role: str) -> None:
    async with watched_agent(tmp_path, keys) as found:
        context = client_context(tmp_path, of_role(keys, role))
        text = await ask(found.port, get("/metrics", "") + get("/metrics"), context)  # one connection, two scrapes
        assert text.count("HTTP/1.1 200 OK") == 2
        assert 'shoal_containers{state="running"} 1.0' in text


async def test_nodes_may_not_read_each_others(tmp_path: Path, keys: Keys) -> None:
    async with watched_agent(tmp_path, keys) as found:
        text = await ask(found.port, get("/metrics"), client_context(tmp_path, keys.node))
        assert text.startswith("HTTP/1.1 403 Forbidden")
        assert text.endswith("a node certificate may not read metrics\n")


async def test_strangers_get_nothing(tmp_path: Path, keys: Keys) -> None:
    async with watched_agent(tmp_path, keys) as found:
        stranger = Keys.make()
        context = client_context(tmp_path, replace(stranger.operator, ca=keys.node.ca))
        assert "shoal_" not in await _or_broken(ask(found.port, get("/metrics"), context))
        assert "shoal_" not in await _or_broken(ask(found.port, get("/metrics"), None))


async def _or_broken(answer: object) -> str:
    try:
        return str(await answer)  # type: ignore[misc]
    except (OSError, ssl.SSLError):
        return ""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/nonsense"), "404 Not Found"),
        (get("/replicas/shop_web.7/metrics"), "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "405 Method Not Allowed"),
    ],
)
async def test_what_there_is_not_is_said(tmp_path: Path, keys: Keys, request_: str, status: str) -> None:
    async with watched_agent(tmp_path, keys) as found:
        assert (await ask(found.port, request_, client_context(tmp_path, keys.operator))).startswith(f"HTTP/1.1 {status}")


@pytest.mark.parametrize("said", ["\r\n\r\n", "GET\r\n\r\n", "x" * 100_000])
async def test_nonsense_ends_the_connection_only(tmp_path: Path, keys: Keys, said: str) -> None:
    async with watched_agent(tmp_path, keys, plain=True) as found:
        assert await _or_broken(ask(found.port, said)) == ""
        assert "shoal_containers" in await ask(found.port, get("/metrics"))


async def test_in_plain_it_tells_of_itself_only(tmp_path: Path, keys: Keys) -> None:
    async with watched_agent(tmp_path, keys, plain=True) as found:
        assert (await ask(found.port, get("/replicas/shop_web.1/metrics?port=80"))).startswith("HTTP/1.1 404")


async def test_what_happened_is_what_is_told(tmp_path: Path, keys: Keys) -> None:
    async with watched_agent(tmp_path, keys, plain=True) as found, Dispatcher(keys, sample_s=7.0).on() as controller:
        agent = found.agent
        dial = watched(dialling(keys.node), found.metrics)
        identity = NodeIdentity("n1", "id1", (controller.address,))
        session = SessionClient(identity, dial, agent.runner, agent.reporter, lambda: INFO, RealClock(), RealRandom())
        running = asyncio.ensure_future(session.run())
        try:
            await (await controller.session()).next("status")
            agent.runtime.end(agent.core.statuses()[0].container_id, 3)
            await agent.reached(lambda: agent.core.statuses()[0].restarts == 1)
            await agent.reached(lambda: agent.core.statuses()[0].state == "running")
            text = (await ask(found.port, get("/metrics"))).partition("\r\n\r\n")[2]
        finally:
            running.cancel()
            await asyncio.wait([running])
        told = {name: float(value) for name, value in re.findall(r"^(shoal_\S+) (\S+)$", text, re.MULTILINE)}
        assert told["shoal_agent_session"] == told["shoal_agent_sessions_total"] == 1
        assert told["shoal_agent_sample_interval_seconds"] == 7
        assert told['shoal_agent_messages_total{direction="sent",kind="hello"}'] == 1
        assert told['shoal_container_restarts_total{service="shop_web"}'] == 1
        assert told['shoal_agent_events_total{kind="replica-exited"}'] == 1
        assert told["shoal_container_start_seconds_count"] == 2
        assert told['shoal_container_cpu_seconds_total{replica="shop_web.1",service="shop_web"}'] == 2
        assert (told["shoal_node_cpu_cores"], told["shoal_images"], told["shoal_image_bytes"]) == (2, 1, 4096)
        said = await asyncio.to_thread(promtool, text)
        assert (said.returncode, said.stderr) == (0, "")


def test_what_was_balanced_never_goes_back() -> None:
    totals = BalancedTotals()

    def row(address: str, connections: int, bytes_in: int) -> Traffic:
        return Traffic("s1", "web", "web.1", address, connections, 0, bytes_in, 0, 0)

    totals.take([row("10.0.0.1", 5, 500), row("10.0.0.2", 1, 10)])
    totals.take([row("10.0.0.1", 7, 700)])
    totals.take([row("10.0.0.1", 2, 20)])  # its rule was made anew
    assert (totals.services["web"].connections, totals.services["web"].bytes_in) == (5 + 1 + 2 + 2, 500 + 10 + 200 + 20)


def test_where_a_replica_is_asked() -> None:
    life = begin(ReplicaId("s1", 1, 7, 1), replace(web(), metrics=MetricsPort(9100, "/m")), "shop_web.1", "run", 1.0)
    assert place_of(life, {}) == MetricsPort(9100, "/m")
    assert place_of(life, {"port": ["80"]}) == MetricsPort(80, "/metrics")
    assert place_of(replace(life, netns="host"), {"port": ["2379"], "path": ["/secret"]}) == MetricsPort(9100, "/m")
    newer = MetricsPort(9200)
    assert place_of(life, {}, newer) == place_of(replace(life, netns="host"), {"port": ["2379"]}, newer) == newer
    assert place_of(life, {"port": ["80"]}, newer).port == 80
    for query in ({"port": ["0"]}, {"port": ["x"]}, {"port": ["80"], "path": ["m"]}, {"port": ["80"], "path": ["/a\r\nb"]}):
        with pytest.raises(BadInput):
            place_of(life, query)
    with pytest.raises(NotFound):
        place_of(replace(life, spec=web()), {})


def test_loopback_is_known() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("10.0.0.1", "0.0.0.0", "n1")))
