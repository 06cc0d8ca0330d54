"""Backends answer only the balancers; a balancer gives one client no more than its share."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleet import BACKENDS
from testbed import NODES, sample

BALANCER = NODES["lb1"]["fleet_address"]

PORTS = (8080, 8081)
# One line for each connection: what became of it.
CONNECT = """
import socket, sys
host, port = sys.argv[1:]
try:
    socket.create_connection((host, int(port)), timeout=5).close()
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""
# Connections that send nothing, for some seconds; says how many came about.
HOLD = """
import socket, sys, time
held = []
for _ in range(int(sys.argv[2])):
    try:
        held.append(socket.create_connection((sys.argv[1], 80), timeout=5))
    except ConnectionRefusedError:
        pass
print(len(held))
time.sleep(3)
"""


def connect(fleet: Any, node: str, host: str, port: int) -> str:
    """Connect from a node to a port; says how it ended."""
    return fleet.sh(node, f"python3 -c '{CONNECT}' {host} {port}")


def link_local(fleet: Any, node: str) -> str:
    """An IPv6 address of a node, as its neighbours write it."""
    address = fleet.sh(node, "ip -6 -brief address show dev eth0 scope link").split()[2]
    return f"{address.partition('/')[0]}%eth0"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("port", PORTS)
def test_strangers_are_refused(fleet: Any, backend: str, port: int) -> None:
    """At once, by either protocol; SSH is not touched, nor is the way of the balancers.

    On the backend itself it takes until the client gives up: the list of the app's socket has no loopback.
    """
    four, six = NODES[backend]["fleet_address"], link_local(fleet, backend)
    assert connect(fleet, "client", four, port) == "ConnectionRefusedError"
    assert connect(fleet, "client", six, port) == "ConnectionRefusedError"
    assert connect(fleet, "client", four, 22) == connect(fleet, "client", six, 22) == "connected"
    assert connect(fleet, "lb1", four, port) == "connected"
    assert connect(fleet, backend, "127.0.0.1", port) == "TimeoutError"


def test_one_client_takes_too_much(fleet: Any) -> None:
    """Of 1,100 connections that one address opens, 1,000 come about; others notice nothing."""
    with fleet.probed() as probe:
        held = int(fleet.sh("app2", f"ulimit -n 4096; python3 -c '{HOLD}' {BALANCER} 1100"))
    assert held == 1000
    assert probe.content["verdict"] == "pass", probe.text
    # Those that are gone count no more.
    assert int(fleet.sh("app2", f"python3 -c '{HOLD}' {BALANCER} 150")) == 150


@pytest.mark.parametrize(
    "harm",
    sample(
        [
            "nft insert rule inet paddock apps accept",
            "nft flush ruleset",
            "systemctl disable --now --quiet paddock-firewall",
        ]
    ),
)
def test_rules_are_repaired(fleet: Any, harm: str) -> None:
    """What is in the kernel decides, not what a file says; the administrator's rules are his."""
    fleet.sh("app1", harm)
    fleet.sh("app1", "nft add table inet admin; nft add chain inet admin kept")
    assert connect(fleet, "client", NODES["app1"]["fleet_address"], 8080) != "ConnectionRefusedError"
    run = fleet.run("playbooks/backends.yml", "--tags", "firewall", "--limit", "app1")
    assert (run.rc, run.changed) == (0, 1), run.output
    assert connect(fleet, "client", NODES["app1"]["fleet_address"], 8080) == "ConnectionRefusedError"
    assert "chain kept" in fleet.sh("app1", "nft list table inet admin; nft delete table inet admin")


@pytest.mark.parametrize("backend", sample(BACKENDS))
def test_an_app_is_no_balancer(fleet: Any, backend: str) -> None:
    """On its own host an app is refused by another one, whose own sockets alone answer on the port."""
    four = NODES[backend]["fleet_address"]
    for host in ("127.0.0.1", four):
        said = fleet.sh(backend, f"runuser -u welcome -- python3 -c '{CONNECT}' {host} 8080")
        assert said == "ConnectionRefusedError"
    fleet.sh(backend, "systemctl stop requestme.socket")
    take = "timeout 15 python3 -m http.server 8080"
    fleet.sh(backend, f"cd /; runuser -u welcome -- {take} >/dev/null 2>&1 & sleep 1")
    try:
        # The health checks of the balancer cut what hangs at a dead backend.
        assert connect(fleet, "lb1", four, 8080) in ("TimeoutError", "ConnectionAbortedError")
    finally:
        fleet.sh(backend, "pkill -u welcome -f http.server; sleep 1; systemctl start requestme.socket")


@pytest.mark.parametrize("backend", sample(reversed(BACKENDS)))
def test_the_socket_alone(fleet: Any, backend: str) -> None:
    """Without the table, the list of the app's own socket keeps strangers out; the balancers pass."""
    four = NODES[backend]["fleet_address"]
    fleet.sh(backend, "nft delete table inet paddock")
    try:
        assert [connect(fleet, "client", four, port) for port in PORTS] == ["TimeoutError"] * 2
        assert {connect(fleet, "lb1", four, port) for port in PORTS} == {"connected"}
    finally:
        fleet.sh(backend, "systemctl reload paddock-firewall")


def test_a_list_that_changes(fleet: Any) -> None:
    """The sockets of the apps go on listening when the balancers become others."""
    inodes = (
        "ss --listening --tcp --numeric --extended 'sport = :8080 or sport = :8081' | grep -o 'ino:[0-9]*'"
    )
    client, app1 = NODES["client"]["fleet_address"], NODES["app1"]["fleet_address"]
    before = {node: fleet.sh(node, inodes) for node in BACKENDS}
    sources = {"fleet_sources": ["{{ fleet_address }}", client]}
    with fleet.probed() as probe:
        run = fleet.run("playbooks/backends.yml", "-e", json.dumps(sources))
        assert run.rc == 0, run.output
        assert {connect(fleet, "client", app1, port) for port in PORTS} == {"connected"}
        assert fleet.run("playbooks/backends.yml").rc == 0
    assert connect(fleet, "client", app1, 8080) == "ConnectionRefusedError"
    assert {node: fleet.sh(node, inodes) for node in BACKENDS} == before
    assert probe.content["verdict"] == "pass", probe.text


def test_rules_outlive_the_administrators(fleet: Any) -> None:
    """Debian's nftables.service begins with a flush of all there is; ours are loaded after it."""
    fleet.sh("app2", "systemctl start nftables; systemctl restart paddock-firewall")
    for command in ("reload", "restart"):
        fleet.sh("app2", f"systemctl {command} nftables")
        assert connect(fleet, "client", NODES["app2"]["fleet_address"], 8080) == "ConnectionRefusedError"
    fleet.sh("app2", "systemctl stop nftables; systemctl start paddock-firewall")


def test_a_balancer_from_elsewhere(fleet: Any) -> None:
    """Where the rules would shut out a balancer, the first backend is opened again and the run stops."""
    run = fleet.run("playbooks/backends.yml", "-e", '{"firewall_app_clients": ["192.0.2.1"]}')
    assert run.rc != 0
    assert "is not confirmed by" in run.output, run.output
    assert connect(fleet, "lb1", NODES["app1"]["fleet_address"], 8080) == "connected"
    assert connect(fleet, "lb1", NODES["app2"]["fleet_address"], 8080) == "connected"
    assert fleet.get()[0] == 200
    assert fleet.run("playbooks/backends.yml").rc == 0


def test_a_name_is_lost(fleet: Any) -> None:
    """A client by name stays while its name is lost; one that never had an address costs only itself."""
    client, app1 = NODES["client"]["fleet_address"], NODES["app1"]["fleet_address"]
    clients = [f"{{{{ gunicorn_trusted_proxies + [{name!r}] }}}}" for name in ("peer.test", "never.test")]
    options = ("--tags", "firewall", "--limit", "app1", "-e")
    by_name, never = (json.dumps({"firewall_app_clients": one}) for one in clients)
    fleet.sh("app1", f"cp /etc/hosts /root/hosts; echo {client} peer.test >> /etc/hosts")
    try:
        run = fleet.run("playbooks/backends.yml", *options, by_name)
        assert run.rc == 0, run.output
        assert f"# Address of peer.test: {client}" in fleet.sh("app1", "cat /etc/paddock/firewall.nft")
        fleet.sh("app1", "cat /root/hosts > /etc/hosts")
        run = fleet.run("playbooks/backends.yml", *options, by_name)
        assert (run.rc, run.changed) == (0, 0), run.output
        assert f"the rules keep what it had: {client}" in " ".join(run.output.split())
        assert client in fleet.sh("app1", "nft list set inet paddock apps4")
        run = fleet.run("playbooks/backends.yml", *options, never)
        assert run.rc == 0, run.output
        assert "never.test is not in DNS for app1; it has never been" in " ".join(run.output.split())
        assert {connect(fleet, "lb1", app1, port) for port in PORTS} == {"connected"}
    finally:
        fleet.sh("app1", "cat /root/hosts > /etc/hosts")
        assert fleet.run("playbooks/backends.yml", *options, "{}").rc == 0


@pytest.mark.full
def test_it_can_be_turned_off(fleet: Any) -> None:
    """The table goes, its unit and its file too, and comes again."""
    run = fleet.run("site.yml", "-e", "firewall_enabled=false", "--tags", "firewall")
    assert run.rc == 0, run.output
    for node in ("lb1", *BACKENDS):
        assert fleet.sh(node, "nft list tables") == ""
        assert fleet.sh(node, "systemctl is-enabled paddock-firewall", check=False) in ("", "not-found")
    assert connect(fleet, "client", NODES["app1"]["fleet_address"], 8080) != "ConnectionRefusedError"
    again = fleet.run("site.yml", "-e", "firewall_enabled=false", "--tags", "firewall")
    assert (again.rc, again.changed) == (0, 0), again.output
    assert fleet.run("site.yml", "--tags", "firewall").rc == 0
    assert connect(fleet, "client", NODES["app1"]["fleet_address"], 8080) == "ConnectionRefusedError"
