"""What comes by the wire and goes on into the kernel's rules is what it says it is."""

from __future__ import annotations

import pytest

from agent.core import wire
from protos import node_pb2 as pb


@pytest.mark.parametrize("text", ["", "web", "10.0.0.1 }", "10.0.0.256", "10.0.0", "10.0.0.1\n", "fd00::1"])
def test_only_addresses_pass_for_addresses(text: str) -> None:
    rows = [pb.Endpoint(replica="a", address="10.0.0.1", underlay=text), pb.Endpoint(replica="b", address=text)]
    message = pb.Endpoints(network="n", services=[pb.ServiceEndpoints(service_id="1", name="web", vip=text, endpoints=rows)])
    (service,) = wire.endpoints_message(message).services
    assert [(row.replica, row.address, row.underlay) for row in service.endpoints] == [("a", "10.0.0.1", "")]
    assert service.vip == ""
