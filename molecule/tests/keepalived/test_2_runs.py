"""A run changes the balancer that clients talk to last, and needs no balancer that is down."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import Any

import pytest
from testbed import FULL, NODES, ROOT, command

from .conftest import BACKENDS, BALANCERS, VIRTUAL


def something_new() -> str:
    """A setting by which every app changes."""
    return json.dumps({"gunicorn_limits": {"max_requests": 10_000 + int(time.time()) % 10_000}})


def test_the_standby_comes_first(fleet: Any) -> None:
    """In whichever order the inventory has them; no client notices a change, and the address stays."""
    for _ in BALANCERS if FULL else BALANCERS[:1]:
        active = fleet.settled()
        (standby,) = {*BALANCERS} - {active}
        with fleet.probed() as probe:
            new = json.dumps({"nginx_limits": {"client_requests": 1000 + int(time.time()) % 1000}})
            run = fleet.run("playbooks/balancers.yml", "-e", new)
        assert run.rc == 0, run.output
        changed = re.findall(r"^changed: \[(lb\d)\]", run.output, re.MULTILINE)
        assert [*dict.fromkeys(changed)] == [standby, active]
        assert changed == sorted(changed, reverse=standby > active), "they took turns"
        assert probe.content["verdict"] == "pass", probe.text
        assert fleet.settled() == active
        fleet.sh(active, "systemctl restart keepalived")  # hands over
        assert fleet.settled() == standby


def test_a_standby_that_fails(fleet: Any) -> None:
    """It does not serve, so the one that does is left alone."""
    active = fleet.settled()
    (standby,) = {*BALANCERS} - {active}
    before = fleet.sh(active, "sha256sum /etc/nginx/nginx.conf")
    cut = "table inet cut { chain out { type filter hook output priority 0; tcp dport 8080-8081 drop; }; }"
    fleet.sh(standby, f"echo '{cut}' | nft --file -")
    run = fleet.run("playbooks/balancers.yml", "-e", '{"nginx_limits": {"client_requests": 99}}')
    fleet.sh(standby, "nft delete table inet cut")
    assert run.rc != 0
    assert f"{standby} does not serve" in run.output, run.output
    assert fleet.sh(active, "sha256sum /etc/nginx/nginx.conf") == before
    assert fleet.get() == 200
    assert fleet.run("playbooks/balancers.yml").rc == 0


@pytest.mark.full
def test_a_balancer_is_down(fleet: Any) -> None:
    """F39: the run stops before it changes anything, or goes on without it where that is said."""
    active = fleet.settled()
    (standby,) = {*BALANCERS} - {active}
    container = NODES[standby]["container"]
    subprocess.run(["podman", "kill", container], check=True, capture_output=True)
    new = something_new()
    run = fleet.run("site.yml", "-e", new)
    assert run.rc != 0
    assert run.changed == 0
    assert f"{standby} does not answer over SSH" in run.output, run.output
    run = fleet.run("site.yml", "-e", new, "--limit", f"!{standby}")
    assert run.rc == 0, run.output
    subprocess.run(["podman", "start", container], check=True, capture_output=True)
    assert fleet.settled() == active


def test_a_balancer_dies_in_a_rollout(fleet: Any) -> None:
    """F39: what no balancer confirms is not rolled out: the run ends with the batch it was at."""
    active = fleet.settled()
    (standby,) = {*BALANCERS} - {active}
    container = NODES[standby]["container"]
    stamps = "systemctl show --property=StatusText --state=active --value 'requestme-*.service'"
    before = {node: fleet.sh(node, stamps) for node in BACKENDS}
    run, output, dead = fleet.begin("site.yml", "-e", something_new()), "", False
    for line in run.stdout or ():
        output += line
        if line.startswith("TASK [gunicorn : Start the new releases]") and not dead:
            subprocess.run(["podman", "kill", container], check=True, capture_output=True)
            dead = True
    run.wait()
    subprocess.run(["podman", "start", container], check=True, capture_output=True)
    assert dead, output
    assert run.returncode != 0, output
    assert fleet.sh("app2", stamps) == before["app2"], output
    assert fleet.get() == 200
    fleet.settled()
    again = fleet.run()
    assert again.rc == 0, again.output


@pytest.mark.full
def test_without_an_address(fleet: Any) -> None:
    """Once the variable is gone, so is keepalived from use; and it comes again with it."""
    fleet.settled()
    run = fleet.run("playbooks/balancers.yml", "-e", "balancer_virtual_ip=")
    assert run.rc == 0, run.output
    assert fleet.holders() == []
    for node in BALANCERS:
        said = fleet.sh(node, "systemctl is-active keepalived; systemctl is-enabled keepalived", check=False)
        assert said.split() == ["inactive", "disabled"]
        assert fleet.sh(node, "ls /etc/keepalived/keepalived.conf", check=False) == ""
    again = fleet.run("playbooks/balancers.yml", "-e", "balancer_virtual_ip=")
    assert (again.rc, again.changed) == (0, 0), again.output
    assert fleet.run("playbooks/balancers.yml").rc == 0
    assert fleet.settled() in BALANCERS


@pytest.mark.full
def test_a_reload_that_got_lost(fleet: Any) -> None:
    """What keepalived has read decides, not the file: a killed run is finished by the next."""
    holder = fleet.settled()
    fleet.sh(holder, "echo '# never read' >/run/paddock-keepalived/read.conf")
    began = time.time()
    run = fleet.run("playbooks/balancers.yml")
    assert (run.rc, run.changed) == (0, 1), run.output
    said = fleet.sh(holder, f"journalctl -u keepalived -o cat --since @{began:.0f}")
    assert "Reload" in said
    assert fleet.holders() == [holder]


def test_the_address_is_the_fleets(fleet: Any) -> None:
    """Playbooks that ask the fleet, as the probe's, ask the address that stays."""
    options = ("-m", "ansible.builtin.debug", "-a", "var=__fleet_url", "--playbook-dir", "playbooks")
    arguments = command("balancers", *options)[1:]
    said = subprocess.run(["ansible", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"__fleet_url: (\S+)", said.stdout) == [f"http://{VIRTUAL}"] * 2
