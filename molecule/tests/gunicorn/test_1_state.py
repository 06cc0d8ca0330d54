"""What stands on a host after a run."""

from __future__ import annotations

import json
import platform
from typing import Any

import pytest

APPS = {"echo": 8080, "drain": 8081}
app_and_port = pytest.mark.parametrize(("app", "port"), APPS.items())
FORBIDDEN = 16
LINUX = tuple(map(int, platform.release().split(".")[:2]))


@app_and_port
def test_one_slot_serves(node: Any, app: str, port: int) -> None:
    """One slot is active and wanted at boot, on a socket that is too; it runs its release as its user."""
    slot = node.slot(app)
    assert node.sh(f"systemctl is-enabled {app}.socket") == "enabled"
    assert node.sh(f"ps -o user= -p {slot.pid}") == app
    said = node.http(port).json
    assert said["master"] == slot.pid
    release = f"/srv/{app}/releases/{node.release(app)}"
    assert said["folder"].startswith(release)
    assert node.sh(f"find {release}-py* ! -user root -o -perm /022 ! -type l") == ""
    assert node.sh(f"readlink -f /srv/{app}/good/$(ls -t /srv/{app}/good | head -1)") == said[
        "folder"
    ].removesuffix("/app")


@app_and_port
def test_configuration_is_for_root_and_the_app(node: Any, app: str, port: int) -> None:
    """Nobody else reads it, and the app cannot change it."""
    color = node.slot(app).color
    modes = set(node.sh(f"stat -c '%a %U:%G' /etc/paddock/{app}/{color}/*").splitlines())
    assert modes == {f"640 root:{app}"}
    assert node.sh(f"stat -c '%a %U:%G' /etc/paddock/{app}/{color}") == f"750 root:{app}"


@app_and_port
def test_exposure(node: Any, app: str, port: int) -> None:
    """Systemd's own judgement of the sandbox, times ten."""
    node.sh(f"systemd-analyze security --threshold=15 {app}-{node.slot(app).color}.service")


def test_sandbox(node: Any) -> None:
    """What the sandbox forbids does not work."""
    outcome = node.http(8080, "/attempts").json
    assert len(outcome) == FORBIDDEN
    assert {what for what, said in outcome.items() if said == "done"} == set()


def test_network(node: Any) -> None:
    """An app goes out, though not to where clouds keep a machine's secrets, and opens no TCP port of its own.

    Also after a daemon-reload, which each installation of a package brings.
    """
    address = node.sh("hostname -I | cut -d' ' -f1")
    node.sh(
        "systemctl daemon-reload; ip address add 169.254.169.254/32 dev lo;"
        " systemd-run -q --unit listener python3 -m http.server 8198 --directory /usr/share/zoneinfo; sleep 1"
    )
    try:
        node.sh("python3 -c \"import socket; socket.create_connection(('169.254.169.254', 8198))\"")
        outcome = node.http(8080, f"/network?address={address}").json
    finally:
        node.sh("systemctl stop listener; ip address del 169.254.169.254/32 dev lo")
    assert outcome.pop(address) == "done"
    assert outcome.pop("169.254.169.254") != "done"
    # The kernel is this machine's; Debian 12's own cannot forbid it.
    tcp = "Permission denied" if LINUX >= (6, 7) else "done"
    assert outcome == {"bind tcp": tcp, "bind tcp6": tcp, "bind udp": "done"}


def test_environment_is_exact(node: Any, fleet: Any) -> None:
    """Every byte of the description reaches the app, and nothing else."""
    environment = node.http(8080).json["environment"]
    wanted = fleet.app("echo")["environment"]
    assert {key: environment.get(key) for key in wanted} == wanted
    assert not [key for key in environment if key.startswith("PADDOCK")]


def test_a_command_of_the_app(node: Any, fleet: Any) -> None:
    """The command of the README: in the release, as the app's user, with the app's variables."""
    slot = node.slot("echo")
    folder = f"/etc/paddock/echo/{slot.color}"
    code = "import json, os, getpass; print(json.dumps([getpass.getuser(), os.getcwd(), dict(os.environ)]))"
    said = node.sh(
        f"cd /proc/{slot.pid}/cwd && runuser -u echo -- python3 {folder}/launch.py"
        f" {folder}/environment.json ../venv/bin/python -c '{code}'"
    )
    user, place, environment = json.loads(said)
    assert (user, place) == ("echo", node.sh(f"readlink /proc/{slot.pid}/cwd"))
    assert environment.items() >= fleet.app("echo")["environment"].items()


def test_scheme_and_request_id(node: Any) -> None:
    """The scheme is taken from a trusted proxy, as loopback is here; the app sees the request's id."""
    said = node.http(8080, **{"X-Forwarded-Proto": "https", "X-Request-Id": "paddock-123"}).json
    assert (said["scheme"], said["headers"]["X-Request-Id"]) == ("https", "paddock-123")


@app_and_port
def test_client(node: Any, app: str, port: int) -> None:
    """The client is the one that a trusted proxy names, without code of the app; else it is the peer."""
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    for header, client in (("203.0.113.9", "203.0.113.9"), ("2001:db8::9", "2001:db8::9")):
        said = node.http(port, **{**forwarded, "X-Forwarded-For": header}).json
        assert (said["client"], said["scheme"]) == (client, "https")
    said = node.http(port).json
    assert (said["client"], said["scheme"]) == ("127.0.0.1", "http")


@app_and_port
def test_a_stranger_is_not_believed(node: Any, app: str, port: int) -> None:
    """Nobody but the balancers is, not even the host's own other address."""
    ask = (
        f"python3 -c \"import urllib.request as u; print(u.urlopen(u.Request('http://{{address}}:{port}/',"
        " headers={{'X-Forwarded-Proto': 'https', 'X-Forwarded-For': '203.0.113.9'}})).read().decode())\""
    )
    address = node.sh("hostname -I | cut -d' ' -f1")
    node.sh(f"systemctl set-property --runtime {app}.socket IPAddressAllow=any")  # it would not get that far
    said = json.loads(node.sh(ask.format(address=address)))
    node.sh(f"rm -r /run/systemd/system.control/{app}.socket.d && systemctl daemon-reload")
    assert (said["client"], said["scheme"]) == (address, "http")


def test_prints_reach_the_journal(node: Any, until: Any) -> None:
    """At once, without a flush in the app."""
    unit = f"drain-{node.slot('drain').color}"
    count = f"journalctl -u {unit} -o cat | grep -c '^drain was asked$' || true"
    before = int(node.sh(count))
    node.http(8081)
    until(lambda: int(node.sh(count)) == before + 1, "the line is there", 5)
