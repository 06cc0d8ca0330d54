"""What the tests of hostile traffic share: the nodes, and one run of all rows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cases import NODES, Outcome, run_all
from wire import NGINX, PORTS, Node


@pytest.fixture(scope="session", autouse=True)
def tunnels() -> Iterator[None]:
    """Make the ports reachable."""
    for node in NODES.values():
        node.open(NGINX, *PORTS.values())
    yield
    for node in NODES.values():
        node.hang_up()


@pytest.fixture(params=sorted(NODES))
def node(request: pytest.FixtureRequest) -> Node:
    """Each node."""
    return NODES[request.param]


@pytest.fixture(scope="session")
def outcomes(tunnels: None) -> dict[str, Outcome]:
    """What became of each row on each way."""
    return run_all()
