"""Backends that a person takes out of rotation stay out until a person puts them back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from balancer import Run
from watched import NAMES, Watched

testinfra_hosts = ["ansible://balancers"]

DRAINED, WANTED = (f"/var/lib/paddock/rotation/{name}.json" for name in ("drained", "wanted"))
RELOAD = "python3 /usr/local/lib/paddock/nginx_host.py reload"


@pytest.fixture(autouse=True)
def all_in(watched: Watched) -> Iterator[None]:
    """All are in before a test, and after it."""
    watched.start()
    watched.await_serving(NAMES)
    yield
    watched.sh(f"rm -f {DRAINED}; {RELOAD}")


def drain(watched: Watched, host: str, *options: str, **variables: object) -> Run:
    """Run the playbook."""
    return watched.play("playbooks/drain.yml", *options, host=host, **variables)


def undrain(watched: Watched, host: str) -> Run:
    """Run the other playbook."""
    return watched.play("playbooks/undrain.yml", host=host)


def test_out_and_in(watched: Watched) -> None:
    """Out, through runs of the role, a restart and a change of the configuration; then in."""
    assert drain(watched, "w2", why="disk is replaced").changed == 1
    watched.await_serving({"w1", "w3", "w4"})
    assert drain(watched, "w2").changed == 0
    run = watched.play("molecule/nginx/converge.yml", "--diff")
    assert (run.ok, run.changed) == (True, 0), run.output
    watched.sh("systemctl restart nginx")
    assert watched.play(nginx_limits={"client_requests": 90}).changed == 1
    watched.await_serving({"w1", "w3", "w4"})
    hand = json.loads(watched.sh(f"cat {DRAINED}"))
    assert hand["w2"]["why"] == "disk is replaced"
    assert "@" in hand["w2"]["by"]
    assert undrain(watched, "w2").changed == 1
    assert undrain(watched, "w2").changed == 0
    watched.await_serving(NAMES)


@pytest.mark.full
def test_dry_run(watched: Watched) -> None:
    """It says that it would change something, and does not."""
    before = watched.balancer.state()
    assert drain(watched, "w2", "--check").changed > 0
    assert watched.balancer.state() == before


@pytest.mark.parametrize("change", [drain, undrain])
def test_refused(watched: Watched, change: Callable[..., Run]) -> None:
    """A backend that is not there is refused, with those that are."""
    before = watched.balancer.state()
    run = change(watched, "w9")
    assert not run.ok
    assert "host is 'w9'; allowed: w1, w2, w3, w4. Nothing was changed." in " ".join(
        run.output.replace("''", "'").split()
    )
    assert watched.balancer.state() == before


@pytest.mark.full
def test_no_backend_is_named(watched: Watched) -> None:
    """The option is missing: nothing is changed."""
    before = watched.balancer.state()
    run = watched.play("playbooks/drain.yml")
    assert not run.ok
    assert "The backend is missing: -e host=NAME. Nothing was changed." in run.output
    assert watched.balancer.state() == before


def test_the_last_one_stays(watched: Watched) -> None:
    """Drained and unhealthy ones count; the message names who is out and why."""
    assert drain(watched, "w1", why="moves house").ok
    watched.health("w2", 500)
    watched.await_serving({"w3", "w4"})
    assert drain(watched, "w3").ok
    before = watched.balancer.state()
    run = drain(watched, "w4")
    assert not run.ok
    said = " ".join(run.output.split())
    assert "w4 is the last healthy backend of watched" in said
    assert "moves house" in said
    assert "it answers 500" in said
    assert watched.balancer.state() == before
    assert watched.serving() == {"w4"}


def test_an_inventory_of_those_who_are_out(watched: Watched) -> None:
    """A run that would leave an app without any backend is refused, and Nginx serves as before."""
    assert drain(watched, "w1").ok
    before = watched.balancer.state()
    run = watched.play(__fleet_backends=["w1"])
    assert not run.ok
    assert "All backends of watched are drained" in run.output
    assert watched.balancer.state() == before


@pytest.mark.full
def test_those_out_by_health_come_back_rather_than_nobody(watched: Watched) -> None:
    """Health checks alone never leave a pool empty, whatever the inventory does."""
    watched.health("w2", 500)
    watched.await_serving({"w1", "w3", "w4"})
    assert watched.play(__fleet_backends=["w2"], health_interval=60).ok
    assert watched.serving() == {"w2"}
    assert watched.play().ok


def test_reload(watched: Watched) -> None:
    """The command puts the rotation into effect, does nothing twice, and fails if Nginx does not follow."""
    watched.sh(f"""echo '{{"w2": {{}}}}' > {DRAINED}""")
    assert watched.sh(RELOAD) == "Nginx runs it."
    watched.await_serving({"w1", "w3", "w4"})
    before = watched.balancer.state()
    assert watched.sh(RELOAD) == "Nothing to do."
    assert watched.balancer.state() == before
    # What is asked for decides, not what someone has made of the file.
    watched.sh("echo nonsense >> /etc/nginx/nginx.conf")
    assert watched.sh(RELOAD) == "Nginx runs it."
    assert watched.balancer.state()[:2] == before[:2]
    before = watched.balancer.state()
    watched.sh(f"rm {DRAINED}; cp -p {WANTED} /root/sound; sed -i 's/worker_processes/nonsense/' {WANTED}")
    refused = watched.balancer.host.run(RELOAD)
    watched.sh(f"mv /root/sound {WANTED}")
    assert refused.rc == 1
    assert "Nginx refuses the new configuration; the one before it keeps serving." in refused.stderr
    assert watched.balancer.state() == before
