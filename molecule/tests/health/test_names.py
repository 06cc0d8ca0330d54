"""Backends by name: one lost name costs that backend at most, whatever Nginx does meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from balancer import Balancer
from watched import ADDRESSES, Watched

testinfra_hosts = ["ansible://balancers"]

NAMES = {name: f"{name}.paddock.test" for name in ADDRESSES}
MARK = "# names of a test"


class Named(Watched):
    """The fleet, with names that only the balancer's own hosts file knows."""

    hosts = NAMES

    def know(self, **addresses: str) -> None:
        """Have the names of some backends, and of no others."""
        lines = "".join(f"{address} {NAMES[name]} {MARK}\\n" for name, address in addresses.items())
        # A container's hosts file can be written, not replaced.
        self.sh(f'old=$(grep -v \'{MARK}\' /etc/hosts); printf "%s\\n{lines}" "$old" > /etc/hosts')

    def status(self) -> str:
        """What the playbook says, in one line."""
        return " ".join(self.play("playbooks/status.yml").output.split())


@pytest.fixture(scope="module")
def named(balancer: Balancer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    """Return a fleet of names, behind the balancer in place of the scenario's."""
    fleet = Named(balancer, tmp_path_factory.mktemp("named"))
    fleet.start()
    fleet.know(**ADDRESSES)
    yield fleet
    fleet.know()
    fleet.start()
    fleet.stop()
    assert balancer.run_role().ok


@pytest.fixture(autouse=True)
def all_known(named: Named) -> None:
    """All serve, by their names."""
    named.know(**ADDRESSES)
    assert named.play().ok
    named.await_serving(NAMES)


def test_nothing_to_do(named: Named) -> None:
    """A second run changes nothing, and the file holds addresses only."""
    before = named.balancer.state()
    assert named.play().changed == 0
    assert named.balancer.state() == before
    assert named.sh("grep -cE '(server |http://)[a-z0-9]+[.]paddock' /etc/nginx/nginx.conf || true") == "0"


def test_a_name_is_lost(named: Named) -> None:
    """Nginx starts and serves, with the last address of that name; runs go on, and the status says it."""
    named.know(**{name: ADDRESSES[name] for name in ("w1", "w2", "w4")})
    named.sh("systemctl restart nginx")
    named.await_serving(NAMES)
    run = named.play()
    assert (run.ok, run.changed) == (True, 0), run.output
    said = " ".join(run.output.split())
    assert f"{NAMES['w3']} is not in DNS: Nginx keeps its last address, {ADDRESSES['w3']}." in said
    assert f"{NAMES['w3']} is not in DNS; its last address is {ADDRESSES['w3']}" in named.status()
    named.await_serving(NAMES)


@pytest.mark.full
def test_all_names_are_lost(named: Named) -> None:
    """A dead DNS changes nothing."""
    named.know()
    named.sh("systemctl restart nginx")
    run = named.play()
    assert (run.ok, run.changed) == (True, 0), run.output
    named.await_serving(NAMES)


def test_a_name_that_was_never_known(named: Named) -> None:
    """Its backend is out, the others serve, through a restart too. Once it is known, no run is needed."""
    named.know()
    named.sh("rm /var/lib/paddock/rotation/wanted.json")  # and with it the last addresses
    known = {name: ADDRESSES[name] for name in ("w1", "w2", "w4")}
    named.know(**known)
    run = named.play()
    assert run.ok, run.output
    assert f"{NAMES['w3']} is not in DNS" in " ".join(run.output.split())
    named.await_serving(known)
    named.sh("systemctl restart nginx")
    named.await_serving(known)
    assert named.play().changed == 0
    status = named.status()
    assert "watched w3 - - - unresolved" in status
    assert f"{NAMES['w3']} is not in DNS" in status
    # A deploy that asks for it is told at once.
    assert named.balancer.status("/backends/watched/w3")[0] == 502
    named.know(**ADDRESSES)
    await_all(named)


@pytest.mark.full
def test_a_name_that_moves(named: Named) -> None:
    """Another address of a name is followed without a run; a run afterwards has nothing to do."""
    named.know(**{**ADDRESSES, "w2": ADDRESSES["w1"]})
    deadline = time.monotonic() + 120
    while "w2" in named.serving():
        assert time.monotonic() < deadline, named.log()
        time.sleep(1)
    assert f"{NAMES['w2']} is {ADDRESSES['w1']} now" in named.log()
    assert named.play().changed == 0
    named.know(**ADDRESSES)
    await_all(named)


def await_all(named: Named) -> None:
    """Wait until all serve: names are looked up once a minute."""
    deadline = time.monotonic() + 120
    while named.serving() != set(NAMES):
        assert time.monotonic() < deadline, named.log()
        time.sleep(1)
