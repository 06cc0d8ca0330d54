"""What a user does with the fleet: release, fail, grow, shrink, leave a dead host out.

The tests run in this order and leave the fleet as they found it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from testbed import NODES, Run, sample

from .conftest import Client, Load

testinfra_hosts = ["local://"]
Site = Callable[..., Run]


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_check_mode_on_a_converged_fleet(site: Site) -> None:
    """Nothing would change."""
    run = site("--check", "--diff")
    assert (run.rc, run.changed) == (0, 0), run.output


def test_a_new_release(site: Site, client: Client, load: Load, app_src: Path) -> None:
    """One line is changed; both backends serve it, no request is lost, and nothing else changes."""
    before = client.releases()
    edit(app_src / "requestme/app.py", "Thank you for requesting me.", "One line is new.")
    with load:
        run = site("-e", f"fleet_app_src={app_src}")
    assert run.rc == 0, run.output
    assert load.failures == []
    assert load.sent > 100
    assert client.releases().isdisjoint(before)
    assert client("/").json()["message"] == "One line is new."
    assert set(client.served_by(8)) == {"app1", "app2"}
    # Nginx is not touched by a release, and neither is the other app.
    assert "changed: [lb1]" not in run.output
    assert not re.search("^changed:.*welcome", run.output, re.MULTILINE)


BREAKAGES = {
    "syntax error": ("app = Flask(", "app = Flask((", "SyntaxError"),
    "import error": ("import socket", "import socket, nowhere_to_be_found", "nowhere_to_be_found"),
    "not ready": ('"/readyz"', '"/not-ready"', "status 404"),
}


@pytest.mark.parametrize("breakage", sample(BREAKAGES))
def test_a_broken_release(site: Site, client: Client, load: Load, app_src: Path, breakage: str) -> None:
    """The run fails and says why; the release before it serves on, and no request is lost."""
    old, new, reason = BREAKAGES[breakage]
    before = client.releases()
    edit(app_src / "requestme/app.py", old, new)
    with load:
        run = site("-e", f"fleet_app_src={app_src}")
    assert run.rc != 0
    assert reason in run.output
    assert "stays live" in run.output
    assert load.failures == []
    assert client.releases() == before
    assert set(client.served_by(8)) == {"app1", "app2"}


def test_back_to_the_first_release(site: Site, client: Client) -> None:
    """The next good run works, and the one after it has nothing to do."""
    assert site().rc == 0
    assert client("/").json()["message"] == "Thank you for requesting me."
    again = site()
    assert (again.rc, again.changed) == (0, 0), again.output


@pytest.mark.parametrize("limit", sample(["app1", "balancers"]))
def test_limit_keeps_the_pool(site: Site, client: Client, limit: str) -> None:
    """A run on a part of the fleet renders the whole pool and changes nothing."""
    run = site("--limit", limit)
    assert (run.rc, run.changed) == (0, 0), run.output
    assert set(client.served_by(8)) == {"app1", "app2"}


def test_one_more_backend(site: Site, client: Client, load: Load, tmp_path: Path) -> None:
    """One more line in the inventory, one run: it serves. Without the line: it does not."""
    more = tmp_path / "more.yml"
    more.write_text("backends:\n  hosts:\n    app3:\n")
    with load:
        run = site("-i", str(more))
        assert run.rc == 0, run.output
        assert set(client.served_by(12)) == {"app1", "app2", "app3"}
        assert site().rc == 0
        assert set(client.served_by(12)) == {"app1", "app2"}
    assert load.failures == []


@pytest.fixture
def names() -> None:
    """Names for the nodes: there is no DNS in their network."""
    lines = "".join(f"{node['fleet_address']} {name}\n" for name, node in NODES.items())
    for node in NODES.values():
        append = ["podman", "exec", "-i", node["container"], "tee", "-a", "/etc/hosts"]
        subprocess.run(append, input=lines, text=True, check=True, capture_output=True)


@pytest.mark.full
@pytest.mark.usefixtures("names")
def test_a_fleet_of_names(site: Site, client: Client, load: Load) -> None:
    """Hosts may be known by names instead of addresses; changing that loses no request."""
    with load:
        run = site("-e", '{"fleet_address": "{{ inventory_hostname }}"}')
    assert run.rc == 0, run.output
    assert load.failures == []
    assert set(client.served_by(8)) == {"app1", "app2"}
    assert site().rc == 0


@pytest.fixture
def dead_app2() -> None:
    """A backend that is switched off."""
    subprocess.run(["podman", "stop", "-t", "0", NODES["app2"]["container"]], check=True, capture_output=True)


@pytest.mark.usefixtures("dead_app2")
def test_a_dead_backend(site: Site, client: Client, app_src: Path) -> None:
    """The fleet serves on; a run stops before it changes anything, or leaves the host out if told."""
    assert set(client.served_by(50)) == {"app1"}
    edit(app_src / "requestme/app.py", "Thank you for requesting me.", "Without app2.")
    run = site("-e", f"fleet_app_src={app_src}")
    assert run.rc != 0
    assert "app2 does not answer over SSH" in run.output
    assert run.changed == 0
    assert client("/").json()["message"] == "Thank you for requesting me."
    run = site("-e", f"fleet_app_src={app_src}", "--limit", "!app2")
    assert run.rc == 0, run.output
    assert client("/").json()["message"] == "Without app2."
