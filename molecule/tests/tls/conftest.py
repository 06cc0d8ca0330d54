"""What the tests of TLS share: balancers asked from outside, playbooks as users run them, the probe."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from cryptography import x509

ROOT = Path(__file__).parents[3]
SCENARIO = ROOT / "molecule/tls"
INVENTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory"
INSTANCES = yaml.safe_load(Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).read_text())
NODES = {node["instance"]: node for node in INSTANCES}
NAMES = ("shop.example.org", "www.shop.example.org")
PEM = "/etc/paddock/tls/fleet.pem"
FULL = os.environ.get("PADDOCK_FULL") == "1"


def sh(node: str, command: str, check: bool = True, text: str = "") -> str:
    """Run a shell command on a node; returns all it printed."""
    argv = ["podman", "exec", "-i", NODES[node]["container"], "sh", "-c", command]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{node}: {command}: {done.stdout}{done.stderr}"
    return (done.stdout + done.stderr).strip()


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


@dataclass(frozen=True)
class Run:
    """What a run of a playbook did."""

    rc: int
    output: str

    @property
    def changed(self) -> int:
        """Changed tasks, over all hosts."""
        return sum(map(int, re.findall(r"changed=(\d+)", self.output)))


def play(*options: str, playbook: str = "playbooks/balancers.yml", **variables: object) -> Run:
    """Run a playbook."""
    command = ["ansible-playbook", "-i", str(INVENTORY), "-e", f"@{ROOT}/molecule/testbed/vars.yml"]
    command += ["-e", f"@{SCENARIO}/vars.yml", "-e", json.dumps(variables), *options, playbook]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    return Run(done.returncode, done.stdout + done.stderr)


def good(*options: str, **variables: object) -> Run:
    """Run the balancers' playbook; it must succeed."""
    run = play(*options, **variables)
    assert run.rc == 0, run.output
    return run


@dataclass
class Report:
    """What the probe saw, once it has ended."""

    content: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    def assert_clean(self) -> None:
        """No request failed."""
        assert self.content["verdict"] == "pass", self.text
        assert sum(kind["failed"] for kind in self.content["classes"] if kind["gates"]) == 0
        assert self.content["ledger"]["clean"]


@contextmanager
def probed(balancer: Balancer, authority: str, work: Path) -> Iterator[Report]:
    """Have the probe ask a balancer by TLS meanwhile."""
    (work / "authority.pem").write_text(authority)
    url = f"https://{balancer.secure[0]}:{balancer.secure[1]}"
    command = [sys.executable, "-m", "probe", "--url", url, "--host-header", NAMES[0], "--rate", "25"]
    command += ["--cacert", str(work / "authority.pem"), "--seconds", "3600"]
    command += ["--json", str(work / "probe.json"), "--picture", str(work / "probe.svg")]
    probe = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    report = Report()
    time.sleep(3)
    try:
        yield report
    finally:
        time.sleep(2)
        probe.send_signal(signal.SIGINT)
        report.text = probe.communicate(timeout=60)[0]
    report.content = json.loads((work / "probe.json").read_text())


@pytest.fixture(params=["lb1", "lb2"])
def balancer(request: pytest.FixtureRequest) -> Balancer:
    """Each of the two: Debian 13 and Debian 12."""
    return Balancer(request.param)
