"""Fixtures of the role nginx."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from balancer import Balancer, Run
from testinfra.host import Host


@pytest.fixture(scope="module")
def balancer(host: Host) -> Balancer:
    """Return the balancer under test."""
    return Balancer(host)


@pytest.fixture
def role(balancer: Balancer) -> Iterator[Callable[..., Run]]:
    """Run the role with other variables; the run after the test shows that the way back works."""
    yield balancer.run_role
    back = balancer.run_role()
    assert back.ok, back.output
    assert balancer.ask("/kept/").status == 200
