"""The usual VPS: apps on the loopback address, TLS of the fleet's own authority."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from testbed import ROOT, Run

from .conftest import Vps

Site = Callable[..., Run]


def test_serves(vps1: Vps) -> None:
    """Both apps, over TLS."""
    assert (vps1.get().status, vps1.get("/welcome/").status) == (200, 200)


# Asks a port of loopback; prints the status, or what became of it.
ASK = """
import http.client, sys
try:
    app = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=3)
    app.request("GET", "/readyz", headers={"X-Forwarded-For": "203.0.113.9"})
    print(app.getresponse().status)
except OSError as error:
    print(type(error).__name__)
"""
# Listens on a port for some seconds, and answers all requests.
TAKE = "timeout 20 python3 -m http.server --bind 127.0.0.1 --directory /usr/share"


def test_an_app_is_no_balancer(vps1: Vps) -> None:
    """Only root and Nginx reach an app's port on its host: another app would say who the client is."""
    said = {
        user: vps1.sh(f"runuser -u {user} -- python3 -c '{ASK}' 8081")
        for user in ("root", "www-data", "requestme", "nobody")
    }
    refused = "ConnectionRefusedError"
    assert said == {"root": "200", "www-data": "200", "requestme": refused, "nobody": refused}


def test_an_app_cannot_take_the_port_of_another(vps1: Vps) -> None:
    """Where an app is stopped, no other gets its requests: only systemd's sockets answer on its port."""
    vps1.sh("systemctl stop welcome.socket")
    vps1.sh(f"runuser -u requestme -- {TAKE} 8081 >/dev/null 2>&1 & sleep 1")
    try:
        assert vps1.sh("ss -Hltn sport = :8081") != ""
        assert vps1.sh(f"python3 -c '{ASK}' 8081") == "TimeoutError"
        assert vps1.get("/welcome/").status in (502, 504)
    finally:
        vps1.sh("pkill -u requestme -f http.server; sleep 1; systemctl start welcome.socket")
    deadline = time.monotonic() + 20
    while vps1.get("/welcome/").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.full
def test_the_rules_of_before(vps1: Vps, site: Site, tmp_path: Path) -> None:
    """The entry point `back` puts back what there was: rules that were there, or none."""
    play = """
- hosts: vps1
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.import_role: {name: paddock.fleet.firewall}
    - ansible.builtin.import_role: {name: paddock.fleet.firewall, tasks_from: back}
"""
    (tmp_path / "back.yml").write_text(play)
    # Terse: without the clients that are connected just now.
    rules = "nft --terse list table inet paddock; nft list set inet paddock apps4"
    before = vps1.sh(rules)
    assert site(str(tmp_path / "back.yml"), "-e", '{"firewall_app_users": ["root", "daemon"]}').rc == 0
    assert vps1.sh(rules) == before
    vps1.sh("systemctl disable --now --quiet paddock-firewall; rm /etc/paddock/firewall.nft")
    assert site(str(tmp_path / "back.yml")).rc == 0
    assert vps1.sh("nft list tables") == ""
    assert site("playbooks/backends.yml", "--tags", "firewall").rc == 0
    assert vps1.sh(rules) == before


def test_a_second_run_changes_nothing(vps1: Vps, site: Site) -> None:
    """Not the keys either, nor what somebody else keeps in the same folder."""
    vps1.sh("mkdir -p /etc/paddock/notes && echo mine > /etc/paddock/notes/file")
    before = vps1.keys()
    again = site()
    assert (again.rc, again.changed) == (0, 0), again.output
    assert vps1.keys() == before
    assert vps1.sh("cat /etc/paddock/notes/file") == "mine"
    assert vps1.get().status == 200


@pytest.mark.full
def test_backends_alone(vps1: Vps, site: Site) -> None:
    """The part of a run that knows no balancer leaves the balancer's files: Nginx could start again."""
    before = vps1.keys()
    alone = site("playbooks/backends.yml")
    assert (alone.rc, alone.changed) == (0, 0), alone.output
    assert vps1.keys() == before
    vps1.sh("nginx -t -q && systemctl restart nginx")
    assert vps1.get().status == 200


def test_rollback_of_the_last_change(vps1: Vps, site: Site, tmp_path: Path) -> None:
    """Runs that change nothing do not count: the rollback is of the app that a run has changed last."""
    source = Path(shutil.copytree(ROOT / "app_src", tmp_path / "app_src"))
    arguments = ("-e", f"fleet_app_src={source}")
    before = vps1.get().release
    app = source / "requestme/app.py"
    app.write_text(app.read_text().replace("Thank you for requesting me.", "Once more."))
    assert site("site.yml", *arguments).rc == 0
    assert vps1.get().release != before
    idle = site("site.yml", *arguments)
    assert (idle.rc, idle.changed) == (0, 0), idle.output
    back = site("playbooks/rollback.yml")
    assert back.rc == 0, back.output
    assert re.findall(r"^(\w+) on vps1: ", back.output, re.MULTILINE) == ["requestme"]
    assert vps1.get().release == before


def test_a_retired_app_takes_only_its_own(vps1: Vps, site: Site) -> None:
    """An app that leaves the description is stopped; keys and foreign folders stay."""
    before = vps1.keys()
    both = vps1.sh("ls /etc/paddock")
    apps = ROOT / "inventory/group_vars/all/apps.yml"
    described = f"{{{{ (lookup('file', '{apps}') | from_yaml).apps[:1] }}}}"
    one = site("site.yml", "-e", f'{{"apps": "{described}"}}')
    assert one.rc == 0, one.output
    assert re.search(r"vps1 +welcome +\w+ +- ", one.output), one.output
    assert set(both.split()) - set(vps1.sh("ls /etc/paddock").split()) == {"welcome"}
    assert vps1.keys() == before
    again = site()
    assert again.rc == 0, again.output
    assert vps1.get("/welcome/").status == 200
