"""A whole fleet and what its users do with it: runs, releases to make, requests."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from testbed import EPHEMERAL, NODES, Report, Run, begin, play, probed, sh

BACKENDS = sorted(name for name in NODES if name.startswith("app"))


class Fleet:
    """The nodes, and what a user does with them."""

    # What ansible-playbook is told in addition to what all scenarios tell it.
    options: tuple[str, ...] = ()

    def __init__(self, work: Path) -> None:
        self.source = Path(shutil.copytree(EPHEMERAL / "apps", work / "apps"))
        self.pristine = (self.source / "requestme/app.py").read_text()
        self.work = work
        self.url = NODES["lb1"]["url"]

    def _arguments(self, *more: str) -> list[str]:
        return [*self.options, "-e", f"fleet_app_src={self.source}", *more]

    def run(self, playbook: str = "site.yml", *arguments: str, env: dict[str, str] | None = None) -> Run:
        """Run a playbook to its end."""
        return play(playbook, *self._arguments(*arguments), env=env)

    def begin(self, playbook: str = "site.yml", env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Begin a run of a playbook, whose output can be read."""
        return begin(playbook, *self._arguments(), env=env)

    def sh(self, node: str, command: str, check: bool = True) -> str:
        """Run a shell command on a node; returns what it printed."""
        return sh(node, command, check)

    def write(self, text: str, code: str = "") -> None:
        """Edit requestme: another message, and code at the end of its module."""
        edited = self.pristine.replace("Thank you for requesting me.", text) + code
        (self.source / "requestme/app.py").write_text(edited)

    def get(self, path: str = "/requestme") -> tuple[int, str]:
        """Ask the balancer; returns status and body."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def serving(self, app: str = "requestme", nodes: Sequence[str] = BACKENDS) -> dict[str, str]:
        """Release that each backend serves, as the process itself says; exactly one slot runs on each."""
        found = {}
        for node in nodes:
            said = self.sh(
                node, f"systemctl show --property=StatusText --state=active --value '{app}-*.service'"
            )
            releases = re.findall(r"release (\S+),", said)
            assert len(releases) == 1, f"{app} on {node}: {said}"
            found[node] = releases[0]
        return found

    def sockets(self) -> dict[str, str]:
        """The listening socket of requestme on each backend, by its inode."""
        return {
            node: self.sh(
                node, "ss --listening --tcp --numeric --extended 'sport = :8080' | grep -o 'ino:[0-9]*'"
            )
            for node in BACKENDS
        }

    def probed(self, *options: str) -> AbstractContextManager[Report]:
        """Have the probe ask the balancer meanwhile."""
        return probed(self.url, self.work, *options)

    @contextmanager
    def slow_requests(self, seconds: float, count: int = 4) -> Iterator[list[int]]:
        """Have requests in flight; gives their statuses in the end."""
        statuses: list[int] = []
        with ThreadPoolExecutor(count) as pool:
            waiting = [pool.submit(self.get, f"/requestme?seconds={seconds}") for _ in range(count)]
            time.sleep(1)
            yield statuses
            statuses += [one.result()[0] for one in waiting]
