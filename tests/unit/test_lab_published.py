"""Where a lab's published ports answer from the machine itself."""

from __future__ import annotations

from typing import Any

from lab.published import lines, published

NODES = {"n1": "10.213.0.11", "n2": "10.213.0.12"}
REPLICAS: list[dict[str, Any]] = [
    {
        "name": "shop_web.1", "service": "shop_web", "node": "n2", "state": "running",
        "host_ports": [["80/tcp", "0.0.0.0:32768"]],
    },
    {"name": "shop_web.2", "service": "shop_web", "node": "n1", "state": "failed", "host_ports": []},
]  # fmt: skip


def port(target: int, number: int, **more: Any) -> dict[str, Any]:
    """As the API has it: what is as usual is left out."""
    return {"target": target, "published": number, **more}


def places(*ports: dict[str, Any]) -> list[tuple[str, ...]]:
    found = published([{"name": "shop_web", "ports": ports}], REPLICAS, NODES)
    return [row.places for row in found if row.service == "shop_web"]


def test_mode_ingress_answers_on_every_ready_node() -> None:
    assert places(port(80, 8080)) == [("10.213.0.11:8080", "10.213.0.12:8080")]


def test_local_and_mode_host_answer_where_a_replica_runs() -> None:
    assert places(port(80, 8080, local=True)) == [("10.213.0.12:8080",)]
    rows = published([{"name": "shop_web", "ports": [port(80, 0, mode="host")]}], REPLICAS, NODES)
    assert [(row.service, row.places) for row in rows] == [("shop_web.1", ("10.213.0.12:32768",))]
    assert published([], REPLICAS, {})[0].places == ()


def test_what_is_not_published_yet_is_left_out_and_localhost_is_nowhere_else() -> None:
    assert places(port(80, 0)) == []
    assert places(port(80, 80, host_ip="127.0.0.1")) == [()]
    assert places(port(80, 80, host_ip="10.213.0.12")) == [("10.213.0.12:80",)]


def test_lines_say_how() -> None:
    services: list[dict[str, Any]] = [
        {"name": "shop_web", "ports": [port(80, 8080)]}, {"name": "a", "ports": [port(53, 53, protocol="udp")]},
    ]  # fmt: skip
    rows = published(services, [], NODES)
    assert lines(rows) == [
        "a 53/udp         udp://10.213.0.11:53 (or 10.213.0.12)",
        "shop_web 80/tcp  http://10.213.0.11:8080 (or 10.213.0.12)",
    ]
    assert rows[1].plain() == {
        "service": "shop_web", "port": "80/tcp", "url": "http://10.213.0.11:8080",
        "places": ["10.213.0.11:8080", "10.213.0.12:8080"],
    }  # fmt: skip
    inside = published([{"name": "a", "ports": [port(80, 80, host_ip="127.0.0.1")]}], [], NODES)
    assert lines(inside) == ["a 80/tcp  - (answers on no node's address)"]
    many = {f"n{number}": f"10.213.0.{number}" for number in range(11, 21)}
    assert lines(published([{"name": "a", "ports": [port(80, 80)]}], [], many))[0].endswith("10.213.0.15 and 5 more)")
