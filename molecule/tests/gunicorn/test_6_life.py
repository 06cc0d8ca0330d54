"""What happens to an app on its host, without a run, and when it moves or leaves."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

PORTS = {"echo": 8080, "drain": 8081}


@pytest.mark.parametrize("app", PORTS)
def test_killed_master_comes_back(node: Any, until: Any, app: str) -> None:
    """Within seconds, by itself, as the same release, and the next run has nothing to do."""
    slot, release = node.slot(app), node.release(app)
    node.sh(f"kill -9 {slot.pid}")
    until(
        lambda: node.sh(f"systemctl is-active {app}-{slot.color}", check=False) == "active", "it is back", 5
    )
    now = node.slot(app)
    assert (now.color, node.release(app)) == (slot.color, release)
    assert now.pid != slot.pid


def test_a_request_starts_a_stopped_slot(node: Any) -> None:
    """The socket goes on to listen."""
    color = node.slot("echo").color
    node.sh(f"systemctl stop echo-{color}")
    assert node.http(8080).status == 200
    assert node.slot("echo").color == color


def test_stopped_socket_stops_the_app(node: Any) -> None:
    """This is how an operator stops an app, and starts it again."""
    color = node.slot("echo").color
    node.sh("systemctl stop echo.socket")
    assert node.sh(f"systemctl is-active echo-{color}", check=False) == "inactive"
    with pytest.raises(OSError):
        node.http(8080)
    node.sh("systemctl start echo.socket")
    assert node.http(8080).status == 200


# Each request on a connection of its own. Who cannot connect, a balancer sends elsewhere, whatever it is.
CLIENTS = """
import http.client, json, sys, threading, time

found = {"answered": 0, "not let in": 0, "lost": 0}

def ask():
    client = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=0.2)
    try:
        client.connect()
    except (ConnectionRefusedError, TimeoutError):
        return "not let in"
    client.sock.settimeout(9)
    try:
        client.request("POST", "/", body="x")
        client.getresponse().read()
        open("/run/answered", "w").close()
        return "answered"
    except (OSError, http.client.HTTPException):
        return "lost"
    finally:
        client.close()

def work():
    while time.monotonic() < end:
        found[ask()] += 1
        time.sleep(0.02)

end = time.monotonic() + 5
clients = [threading.Thread(target=work) for _ in range(4)]
for client in clients:
    client.start()
for client in clients:
    client.join()
print(json.dumps(found))
"""


@pytest.mark.parametrize("app", PORTS)
def test_a_stop_lets_nobody_in(node: Any, call: Any, until: Any, app: str) -> None:
    """The slot finishes what it has; no request is sent to a port that no process reads any more."""
    port, slot = PORTS[app], f"{app}-{node.slot(app).color}.service"
    node.sh(f"rm -f /run/answered; cat >/run/clients.py <<'END'\n{CLIENTS}\nEND")
    established = f"ss -Htn state established 'sport = :{port}' | wc -l"
    with call(lambda: node.http(port, "/sleep?seconds=4")) as slow:
        until(lambda: int(node.sh(established)) > 0, "it is under way")
        with call(lambda: node.sh(f"python3 /run/clients.py {port}")) as clients:
            until(lambda: node.sh("ls /run/answered", check=False), "a client has an answer")
            node.sh(f"systemctl stop --no-block {app}.socket; sleep 1.5")
            assert node.sh(f"systemctl is-active {slot}", check=False) == "deactivating"
    units = f"systemctl is-active {app}.socket {slot}"
    assert node.sh(units, check=False).split() == ["inactive", "inactive"]
    node.sh(f"systemctl start {app}.socket")
    assert node.http(port).status == 200
    assert slow.outcome.status == 200
    found = json.loads(clients.outcome)
    # One may come in the moment between the last look and the end.
    assert found["answered"] > 9 and found["not let in"] > 9 and found["lost"] <= 1, found


def test_reboot(nodes: list[Any], fleet: Any, reboot: Any) -> None:
    """All apps answer again without a run, and a run finds nothing to do."""
    before = [(node.slot(app).color, node.release(app)) for node in nodes for app in PORTS]
    reboot(nodes)
    assert [(node.slot(app).color, node.release(app)) for node in nodes for app in PORTS] == before
    assert fleet.configure().changed == 0


@pytest.fixture
def changed_fleet(fleet: Any) -> Any:
    """The fleet, whose description is put back afterwards."""
    apps = copy.deepcopy(fleet.apps)
    yield fleet
    fleet.apps = apps


# A packaged unit, a group, a user of the system.
NAMES = ["ssh", "shadow", "games"]


@pytest.mark.full
def test_names_that_are_taken(changed_fleet: Any, nodes: list[Any]) -> None:
    """An app may not become somebody else; nothing was touched."""
    fleet, node = changed_fleet, nodes[0]
    for number, name in enumerate(NAMES):
        if not (fleet.source / name).exists():
            (fleet.source / name).symlink_to(fleet.source / "echo")
        fleet.apps.append({**fleet.app("echo"), "name": name, "port": 8200 + number})
    look = "sha256sum /etc/passwd /etc/group; ls -a /etc/paddock /etc/systemd/system"
    before = node.sh(look)
    run = fleet.configure("--limit", node.name, rc=2)
    for name in NAMES:
        assert re.search(rf"{name}: .*; give the app another name", run.output), run.output
    assert node.sh(look) == before


def test_port_and_departure(changed_fleet: Any, nodes: list[Any]) -> None:
    """An app moves to another port; one that left the description is stopped and its units are gone."""
    fleet, node = changed_fleet, nodes[0]
    fleet.app("echo")["port"] = 8090
    fleet.apps.remove(fleet.app("drain"))
    fleet.configure("--limit", node.name)
    assert node.http(8090).status == 200
    node.slot("echo")
    for port in PORTS.values():
        with pytest.raises(OSError):
            node.http(port)
    assert node.sh("ls -R /etc/systemd/system | grep ^drain", check=False) == ""
    assert node.sh("systemctl list-units --all --plain --no-legend 'drain*'") == ""
    assert node.sh("ls /etc/paddock") == "echo"
    assert node.sh("ls /srv/drain/releases") != ""
    assert fleet.configure("--limit", node.name).changed == 0


def test_return(fleet: Any, nodes: list[Any]) -> None:
    """Both come back to where they were."""
    node = nodes[0]
    fleet.configure("--limit", node.name)
    assert [node.http(port).status for port in PORTS.values()] == [200, 200]
