"""One machine that is balancer and backend, as its clients and its owner see it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import testbed
from testbed import NODES, ROOT, Run, sh

NAME = "vps.example.org"


class Answer(NamedTuple):
    """What a request got."""

    status: int
    body: str

    @property
    def release(self) -> str:
        """Release that answered."""
        return json.loads(self.body)["release"]


class Vps:
    """A node that is the whole fleet.

    Attributes:
        name: In the inventory.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def sh(self, command: str, check: bool = True) -> str:
        """Run a shell command; returns what it printed."""
        return sh(self.name, command, check)

    def get(self, path: str = "/requestme") -> Answer:
        """Send a GET over TLS, as a client does that trusts the authority of the fleet."""
        context = ssl.create_default_context(cadata=self.sh("cat /etc/paddock/tls/authority.pem"))
        connection = http.client.HTTPConnection(NAME, timeout=20)
        plain = socket.create_connection(("127.0.0.1", NODES[self.name]["tls_port"]), timeout=20)
        connection.sock = context.wrap_socket(plain, server_hostname=NAME)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return Answer(response.status, response.read().decode())
        finally:
            connection.close()

    def keys(self) -> str:
        """Checksums of the certificate, of the authority and of their keys."""
        return self.sh("cd /etc/paddock/tls && sha256sum *.pem *.key")


def run(inventory: Path, playbook: str, *arguments: str) -> Run:
    """Run a playbook over an inventory of the test's own."""
    command = ["ansible-playbook", "-i", str(inventory), *arguments, playbook]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**testbed.os.environ, **testbed.PLAIN},
    )
    return Run(done.returncode, done.stdout + done.stderr, 0)


@pytest.fixture(scope="session")
def vps1() -> Vps:
    """The machine of the scenario: its apps listen on the loopback address."""
    return Vps("vps1")


@pytest.fixture(scope="session")
def site() -> Callable[..., Run]:
    """Run a playbook as the scenario's converge does."""
    variables = ("-e", f"@{ROOT}/molecule/single/vars.yml")

    def site(playbook: str = "site.yml", *arguments: str, **more: Any) -> Run:
        return testbed.play(playbook, *variables, *arguments, **more)

    return site
