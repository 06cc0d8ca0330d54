"""What a hostile request can do that has taken an app over."""

from __future__ import annotations

import http.client
import json

import pytest
from attacks import FORBIDS_PORTS, LINUX
from wire import NGINX, Node

SHUT = ("echo-shut", "twin-shut")
# Systemd's own judgement, times ten.
EXPOSURE = {"echo": 15, "twin": 15, "echo-shut": 6, "twin-shut": 6, "nginx": 30, "nginx-health": 25}


def ask(node: Node, app: str, path: str) -> dict[str, str]:
    """Ask an app through Nginx."""
    connection = http.client.HTTPConnection("127.0.0.1", timeout=20)
    connection.sock = node.connect(NGINX)
    try:
        connection.request("GET", path, headers={"Host": f"{app}.test"})
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        answer: dict[str, str] = json.loads(body)
        return answer
    finally:
        connection.close()


@pytest.mark.parametrize(("unit", "most"), EXPOSURE.items())
def test_exposure(node: Node, unit: str, most: int) -> None:
    """Systemd finds each service as closed as it is meant to be."""
    found = node.sh(f"systemctl list-units --plain --no-legend '{unit}.service' '{unit}-[bg]*.service'")
    names = [line.split()[0] for line in found.splitlines()]
    assert len(names) == 1, found
    node.sh(f"systemd-analyze security --threshold={most} {names[0]}")


@pytest.mark.parametrize("app", ["echo", "twin"])
def test_app_goes_out(node: Node, app: str) -> None:
    """An app may open connections, as to its database, and no port; the attempts below are good ones."""
    outcome = ask(node, app, f"/outward?address={node.address}&port={NGINX}")
    listen = "[Errno 13] Permission denied" if LINUX >= FORBIDS_PORTS else "done"
    assert outcome == {"connect": "done", "send": "done", "listen": listen}


@pytest.mark.parametrize("app", SHUT)
def test_app_that_may_not_go_out(node: Node, app: str) -> None:
    """It answers, and reaches nothing: not the host, not its loopback, not a name server."""
    assert ask(node, app, "/tag")["path"] == "/tag"
    for address in (node.address, "127.0.0.1"):
        outcome = ask(node, app, f"/outward?address={address}&port={NGINX}")
        assert len(outcome) == 3
        assert "done" not in outcome.values()
