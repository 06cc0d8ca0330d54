"""Fixtures of the role nginx."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from testinfra.host import Host

sys.path.insert(0, str(Path(__file__).parent))

from balancer import Balancer, Run
from watched import Watched


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


@pytest.fixture(scope="module")
def watched(balancer: Balancer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Return a fleet that is well, in place of the scenario's."""
    fleet = Watched(balancer, tmp_path_factory.mktemp("watched"))
    fleet.start()
    assert fleet.play().ok
    yield fleet
    fleet.start()
    fleet.stop()
    assert balancer.run_role().ok
