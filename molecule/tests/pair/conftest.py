"""What the tests of a pair share: the nodes, the playbooks, a client with one address to ask."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
TESTBED = ROOT / "molecule/testbed"
INVENTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory"
NODES = {
    node["instance"]: node
    for node in yaml.safe_load(Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).read_text())
}
BALANCERS, BACKENDS = ("lb1", "lb2"), ("app1", "app2")
VIRTUAL = NODES["lb1"]["fleet_address"].rpartition(".")[0] + ".200"
# Every packet, and ARP too: a host that still answers that is not cut off.
CUT = """table netdev cut {
    chain in { type filter hook ingress device eth0 priority 0; policy drop; }
    chain out { type filter hook egress device eth0 priority 0; policy drop; }
}"""


@dataclass(frozen=True)
class Run:
    """What a run of a playbook did."""

    rc: int
    output: str

    @property
    def changed(self) -> int:
        """Changed tasks, over all hosts; -1 where the run had no recap."""
        counts = [int(part.split()[0]) for part in self.output.split("changed=")[1:]]
        return sum(counts) if counts else -1


@dataclass
class Report:
    """What the probe saw, once it has ended."""

    content: dict[str, Any] = field(default_factory=dict)
    text: str = ""


class Fleet:
    """The nodes, and what happens to them."""

    def __init__(self, work: Path) -> None:
        self.work = work
        # This machine may have no way to the nodes' network. The client has, and passes on what it is asked.
        self.url = NODES["client"]["url"]
        self.sh(
            "client",
            "systemctl cat front.socket >/dev/null 2>&1 || systemd-run --quiet --unit=front"
            f" --socket-property=ListenStream=80 /usr/lib/systemd/systemd-socket-proxyd {VIRTUAL}:80",
        )

    def sh(self, node: str, command: str, check: bool = True) -> str:
        """Run a shell command on a node; returns what it printed."""
        argv = ["podman", "exec", NODES[node]["container"], "sh", "-c", command]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0 or not check, f"{node}: {command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def command(self, playbook: str, *arguments: str) -> list[str]:
        """The command of a run."""
        variables = ("-e", f"@{TESTBED}/vars.yml")
        return ["ansible-playbook", "-i", str(INVENTORY), *variables, playbook, *arguments]

    def run(self, playbook: str = "site.yml", *arguments: str) -> Run:
        """Run a playbook to its end."""
        command = self.command(playbook, *arguments)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
        return Run(done.returncode, done.stdout + done.stderr)

    def begin(self, playbook: str, *arguments: str) -> subprocess.Popen[str]:
        """Begin a run of a playbook, whose output can be read."""
        command = self.command(playbook, *arguments)
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def get(self, path: str = "/requestme") -> int:
        """Ask the virtual address; returns the status, 0 where no answer comes."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def holders(self) -> list[str]:
        """Balancers that have the virtual address."""
        return [node for node in BALANCERS if self.sh(node, f"ip address show to {VIRTUAL}", check=False)]

    def settled(self, seconds: float = 60) -> str:
        """Wait until one balancer has the address and both would take it; returns who has it."""
        deadline = time.monotonic() + seconds
        while True:
            found, ready = self.holders(), [node for node in BALANCERS if self.sees_nginx(node)]
            if len(found) == 1 and ready == list(BALANCERS) and self.get() == 200:
                return found[0]
            assert time.monotonic() < deadline, f"held by {found}, Nginx answers on {ready}"
            time.sleep(0.5)

    def sees_nginx(self, node: str) -> bool:
        """Whether keepalived on a balancer takes its Nginx for alive."""
        said = self.sh(
            node,
            "journalctl -b -u keepalived -o cat | grep -E '^\\(paddock\\) Entering' | tail -1",
            check=False,
        )
        return "BACKUP" in said or "MASTER" in said

    @contextmanager
    def probed(self) -> Iterator[Report]:
        """Have the probe ask the virtual address meanwhile."""
        path = self.work / f"probe-{time.monotonic_ns()}.json"
        command = [sys.executable, "-m", "probe", "--url", self.url, "--rate", "25"]
        command += ["--seconds", "3600", "--json", str(path), "--picture", str(path.with_suffix(".svg"))]
        probe = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        report = Report()
        # It says after some seconds how it goes.
        assert " sent, " in (probe.stdout.readline() if probe.stdout else "")
        try:
            yield report
        finally:
            time.sleep(2)
            probe.send_signal(2)
            report.text = probe.communicate(timeout=90)[0]
        report.content = json.loads(path.read_text())


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """The fleet."""
    return Fleet(tmp_path_factory.mktemp("fleet"))
