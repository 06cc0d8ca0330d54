"""What the tests of a pair share: the nodes, the playbooks, a client with one address to ask."""

from __future__ import annotations

import http.client
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from testbed import NODES, Report, Run, begin, play, probed, sh

BALANCERS, BACKENDS = ("lb1", "lb2"), ("app1", "app2")
VIRTUAL = NODES["lb1"]["fleet_address"].rpartition(".")[0] + ".200"
# Every packet, and ARP too: a host that still answers that is not cut off.
CUT = """table netdev cut {
    chain in { type filter hook ingress device eth0 priority 0; policy drop; }
    chain out { type filter hook egress device eth0 priority 0; policy drop; }
}"""


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
        return sh(node, command, check)

    def run(self, playbook: str = "site.yml", *arguments: str) -> Run:
        """Run a playbook to its end."""
        return play(playbook, *arguments)

    def begin(self, playbook: str, *arguments: str) -> subprocess.Popen[str]:
        """Begin a run of a playbook, whose output can be read."""
        return begin(playbook, *arguments)

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

    def probed(self) -> AbstractContextManager[Report]:
        """Have the probe ask the virtual address meanwhile."""
        return probed(self.url, self.work)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """The fleet."""
    return Fleet(tmp_path_factory.mktemp("fleet"))
