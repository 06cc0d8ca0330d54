"""Fixtures of the role health."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from balancer import Balancer
from testinfra.host import Host
from watched import Watched


@pytest.fixture(scope="module")
def balancer(host: Host) -> Balancer:
    """Return the balancer under test."""
    return Balancer(host)


@pytest.fixture(scope="module")
def watched(balancer: Balancer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Return a healthy fleet, in place of the scenario's."""
    fleet = Watched(balancer, tmp_path_factory.mktemp("watched"))
    fleet.start()
    assert fleet.play().ok
    yield fleet
    fleet.start()
    fleet.stop()
    assert balancer.run_role().ok
