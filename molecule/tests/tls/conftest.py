"""What the tests of TLS share: balancers asked from outside, and runs of their playbook."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import testbed
from cryptography import x509
from testbed import NODES, ROOT, Report, Run, sh

NAMES = ("shop.example.org", "www.shop.example.org")
PEM = "/etc/paddock/tls/fleet.pem"


class Answer(NamedTuple):
    """What a request got."""

    status: int
    headers: http.client.HTTPMessage
    body: str


@dataclass(frozen=True)
class Balancer:
    """A balancer, as its clients see it."""

    name: str

    @property
    def plain(self) -> tuple[str, int]:
        """Where it listens without TLS."""
        address, _, port = NODES[self.name]["url"].removeprefix("http://").partition(":")
        return address, int(port)

    @property
    def secure(self) -> tuple[str, int]:
        """Where it listens with TLS."""
        return "127.0.0.1", NODES[self.name]["tls_port"]

    def hello(self, context: ssl.SSLContext, name: str | None = NAMES[0]) -> ssl.SSLSocket:
        """Shake hands."""
        return context.wrap_socket(socket.create_connection(self.secure, timeout=10), server_hostname=name)

    def serial(self) -> int:
        """Serial number of the certificate that a new handshake gets."""
        with self.hello(ssl._create_unverified_context()) as connection:
            return x509.load_der_x509_certificate(connection.getpeercert(True) or b"").serial_number

    def settled(self) -> int:
        """Serial number of the certificate in place, once new handshakes get it: within 5 s."""
        wanted = int(sh(self.name, f"openssl x509 -noout -serial -in {PEM}").partition("=")[2], 16)
        deadline = time.monotonic() + 5
        while self.serial() != wanted:
            assert time.monotonic() < deadline, "another certificate is served than the one in place"
            time.sleep(0.05)
        return wanted

    def ask(self, path: str, authority: str = "", name: str = NAMES[0]) -> Answer:
        """Send a GET, with TLS where there is an authority that must have signed."""
        connection = http.client.HTTPConnection(*self.plain, timeout=20)
        if authority:
            connection.sock = self.hello(ssl.create_default_context(cadata=authority), name)
        try:
            connection.request("GET", path, headers={"Host": name})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()


def play(*options: str, playbook: str = "playbooks/balancers.yml", **variables: object) -> Run:
    """Run a playbook with variables of the scenario's and of the test's."""
    own = ("-e", f"@{ROOT}/molecule/tls/vars.yml", "-e", json.dumps(variables))
    return testbed.play(playbook, *own, *options)


def good(*options: str, **variables: object) -> Run:
    """Run the balancers' playbook; it must succeed."""
    run = play(*options, **variables)
    assert run.rc == 0, run.output
    return run


def probed(balancer: Balancer, authority: str, work: Path) -> AbstractContextManager[Report]:
    """Have the probe ask a balancer by TLS meanwhile."""
    (work / "authority.pem").write_text(authority)
    url = f"https://{balancer.secure[0]}:{balancer.secure[1]}"
    return testbed.probed(url, work, "--host-header", NAMES[0], "--cacert", str(work / "authority.pem"))


@pytest.fixture(params=["lb1", "lb2"])
def balancer(request: pytest.FixtureRequest) -> Balancer:
    """Each of the two: Debian 13 and Debian 12."""
    return Balancer(request.param)
