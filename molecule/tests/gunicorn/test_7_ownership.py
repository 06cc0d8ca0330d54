"""The role touches what is its own, and nothing of others on the host."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

STRANGERS = "/etc/paddock/tls/fleet.key /etc/paddock/somebody/blue.conf"
LIST = "/var/lib/paddock/apps.json"


@pytest.fixture
def strangers(nodes: list[Any]) -> Iterator[None]:
    """Folders of another role and of somebody else, where the apps' folders are."""
    for node in nodes:
        node.sh(f"for file in {STRANGERS}; do mkdir -p ${{file%/*}}; echo key >$file; done")
    yield
    for node in nodes:
        node.sh("rm -rf /etc/paddock/tls /etc/paddock/somebody")


@pytest.fixture
def changed_fleet(fleet: Any) -> Iterator[Any]:
    """The fleet, whose description is put back afterwards."""
    apps = copy.deepcopy(fleet.apps)
    yield fleet
    fleet.apps, fleet.settings = apps, {}
    fleet.configure()


def test_a_strangers_folder_stays(fleet: Any, nodes: list[Any], strangers: None) -> None:
    """It is no app that left: no run removes it, or has anything to do because of it."""
    fleet.configure()
    assert fleet.configure().changed == 0
    for node in nodes:
        assert node.sh(f"cat {STRANGERS}") == "key\nkey"
        assert node.sh(f"cat {LIST}") == '["drain", "echo"]'


@pytest.mark.full
def test_a_host_of_an_earlier_checkout(changed_fleet: Any, nodes: list[Any], strangers: None) -> None:
    """It has no list yet: its apps are found by what only they have, and one that left is removed."""
    fleet = changed_fleet
    for node in nodes:
        node.sh(f"rm -f {LIST}")
    fleet.apps.remove(fleet.app("drain"))
    fleet.configure()
    for node in nodes:
        assert node.sh("ls /etc/paddock") == "echo\nsomebody\ntls"
        assert node.sh(f"cat {STRANGERS} {LIST}") == 'key\nkey\n["echo"]'
        assert node.sh("systemctl list-units --all --plain --no-legend 'drain*'") == ""
    assert fleet.configure().changed == 0


# Kills the module that removes an app, before the last of its files has gone.
TRAP = """#!/bin/sh
case "$*" in *daemon-reload) test ! -e /run/trap/set || { rm /run/trap/set; kill -9 $PPID; exit; } ;; esac
exec /usr/bin/systemctl "$@"
"""
PLACE = "/usr/local/bin/systemctl"


@pytest.mark.full
def test_killed_while_an_app_leaves(changed_fleet: Any, nodes: list[Any], strangers: None) -> None:
    """The next run still knows that the rest is the app's, and removes it."""
    fleet, node = changed_fleet, nodes[0]
    fleet.configure()
    node.sh(f"mkdir -p /run/trap; touch /run/trap/set; cat >{PLACE} <<'END'\n{TRAP}END\nchmod +x {PLACE}")
    fleet.apps.remove(fleet.app("drain"))
    try:
        fleet.configure("--limit", node.name, rc=2)
        assert node.sh(f"test ! -e /run/trap/set; cat {LIST}") == '["drain", "echo"]'
    finally:
        node.sh(f"rm -rf {PLACE} /run/trap")
    fleet.configure("--limit", node.name)
    assert node.sh(f"ls /etc/paddock; cat {STRANGERS} {LIST}") == 'echo\nsomebody\ntls\nkey\nkey\n["echo"]'
    assert fleet.configure("--limit", node.name).changed == 0


@pytest.mark.parametrize(
    ("make", "remove"),
    [
        ("mkdir -p /etc/paddock/new; echo x >/etc/paddock/new/x", "rm -r /etc/paddock/new"),
        ("touch /etc/systemd/system/new.socket", "rm /etc/systemd/system/new.socket"),
    ],
)
def test_an_app_takes_no_files_of_others(
    changed_fleet: Any, nodes: list[Any], make: str, remove: str
) -> None:
    """A new app by the name of what somebody else has there is refused."""
    fleet, node = changed_fleet, nodes[0]
    if not (fleet.source / "new").exists():
        (fleet.source / "new").symlink_to(fleet.source / "echo")
    fleet.apps.append({**fleet.app("echo"), "name": "new", "port": 8300})
    node.sh(make)
    try:
        run = fleet.configure("--limit", node.name, rc=2)
        assert "is there already, and no app's" in run.output
    finally:
        node.sh(remove)


@pytest.mark.full
def test_overlapping_clients(changed_fleet: Any, nodes: list[Any]) -> None:
    """Systemd drops addresses that a network of the list has; the list is the same one all the same."""
    fleet = changed_fleet
    fleet.settings["gunicorn_trusted_proxies"] = ["::1", "2001:db8::1", "2001:db8::/64"]
    fleet.configure()
    assert fleet.configure().changed == 0
    for node in nodes:
        there = node.sh("systemctl show --property=IPAddressAllow --value echo.socket").split()
        assert sorted(there) == ["2001:db8::/64", "::1/128"]


ASKED = (
    "python3 -c \"import urllib.request as u; print(u.urlopen(u.Request('http://{address}:8080/',"
    " headers={{'X-Forwarded-For': '203.0.113.9'}}), timeout=3).read().decode())\""
)


@pytest.mark.full
def test_monitoring_is_let_in(changed_fleet: Any, nodes: list[Any]) -> None:
    """Who is in gunicorn_clients connects, and is not believed on the client; who is not does not connect."""
    fleet = changed_fleet
    addresses = {node: node.sh("hostname -I | cut -d' ' -f1") for node in nodes}
    for node, address in addresses.items():
        assert "timed out" in node.sh(f"{ASKED.format(address=address)} 2>&1", check=False)
    fleet.settings["gunicorn_clients"] = ["10.254.0.0/16", *addresses.values()]
    fleet.configure()
    for node, address in addresses.items():
        assert json.loads(node.sh(ASKED.format(address=address)))["client"] == address
    assert fleet.configure().changed == 0


def test_the_host_is_no_balancer(changed_fleet: Any, nodes: list[Any]) -> None:
    """Where none is on it, no app gets past the balancer to another, or is believed on the client."""
    fleet, asked = changed_fleet, ASKED.format(address="127.0.0.1")
    fleet.settings["gunicorn_trusted_proxies"] = ["192.0.2.1"]
    fleet.configure("--limit", nodes[0].name)
    assert "timed out" in nodes[0].sh(f"{asked} 2>&1", check=False)
    fleet.settings["gunicorn_clients"] = ["127.0.0.1"]
    fleet.configure("--limit", nodes[0].name)
    assert json.loads(nodes[0].sh(asked))["client"] == "127.0.0.1"
