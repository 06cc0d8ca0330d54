"""What tests of a whole fleet share: the probe as judge, playbooks as users run them, releases to make."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TESTBED = ROOT / "molecule/testbed"
INVENTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory"
INSTANCES = yaml.safe_load(Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).read_text())
NODES = {node["instance"]: node for node in INSTANCES}
BACKENDS = sorted(name for name in NODES if name.startswith("app"))
# The whole matrix takes an hour: `make test-all`.
FULL = os.environ.get("PADDOCK_FULL") == "1"
RATE = "50" if FULL else "25"


@dataclass(frozen=True)
class Run:
    """What a run of a playbook did."""

    rc: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        """Changed tasks, over all hosts; -1 where the run had no recap."""
        counts = [int(part.split()[0]) for part in self.output.split("changed=")[1:]]
        return sum(counts) if counts else -1


@dataclass
class Report:
    """What the probe saw, once it has ended."""

    path: Path
    content: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""

    def assert_clean(self, posts: int = 1) -> None:
        """No gating request failed, and the ledger has each POST once."""
        assert self.content["verdict"] == "pass", self.text
        gating = [kind for kind in self.content["classes"] if kind["gates"]]
        assert {"new", "keepalive"} <= {kind["name"] for kind in gating}
        assert [kind["name"] for kind in gating if kind["failed"] or not kind["sent"]] == []
        assert self.content["ledger"]["clean"]
        assert self.content["ledger"]["posts"] >= posts


class Fleet:
    """The nodes, and what a user does with them."""

    variables: tuple[str, ...] = (f"@{TESTBED}/vars.yml",)

    def __init__(self, work: Path) -> None:
        self.source = Path(shutil.copytree(ROOT / "app_src", work / "app_src"))
        self.pristine = (self.source / "requestme/app.py").read_text()
        self.work = work
        self.url = NODES["lb1"]["url"]

    def command(self, playbook: str, *arguments: str) -> list[str]:
        """The command of a run."""
        return [
            *("ansible-playbook", "-i", str(INVENTORY)),
            *(part for extra in self.variables for part in ("-e", extra)),
            *("-e", f"fleet_app_src={self.source}", playbook, *arguments),
        ]

    def run(self, playbook: str = "site.yml", *arguments: str, env: dict[str, str] | None = None) -> Run:
        """Run a playbook to its end."""
        began = time.monotonic()
        done = subprocess.run(
            self.command(playbook, *arguments),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, **(env or {})},
        )
        return Run(done.returncode, done.stdout + done.stderr, time.monotonic() - began)

    def begin(self, playbook: str = "site.yml") -> subprocess.Popen[str]:
        """Begin a run of a playbook, whose output can be read."""
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(self.command(playbook), cwd=ROOT, **pipe)  # type: ignore[call-overload]

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

    def sh(self, node: str, command: str, check: bool = True) -> str:
        """Run a shell command on a node; returns what it printed."""
        argv = ["podman", "exec", NODES[node]["container"], "sh", "-c", command]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{node}: {command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

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

    @contextmanager
    def probed(self, *options: str) -> Iterator[Report]:
        """Have the probe ask the balancer meanwhile."""
        path = self.work / f"probe-{time.monotonic_ns()}.json"
        command = [sys.executable, "-m", "probe", "--url", self.url, "--rate", RATE, "--seconds", "3600"]
        command += ["--json", str(path), "--picture", str(path.with_suffix(".svg"))]
        command += ["--history", str(path.with_suffix(".jsonl")), *options]
        probe = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        report = Report(path)
        time.sleep(3)
        try:
            yield report
        finally:
            time.sleep(2)
            probe.send_signal(signal.SIGINT)
            report.text = probe.communicate(timeout=60)[0]
        report.content = json.loads(path.read_text())
        lines = path.with_suffix(".jsonl").read_text().splitlines()
        report.history = [json.loads(line) for line in lines]

    @contextmanager
    def slow_requests(self, seconds: float, count: int = 4) -> Iterator[list[int]]:
        """Have requests in flight; gives their statuses in the end."""
        statuses: list[int] = []
        with ThreadPoolExecutor(count) as pool:
            waiting = [pool.submit(self.get, f"/requestme/slow?seconds={seconds}") for _ in range(count)]
            time.sleep(1)
            yield statuses
            statuses += [one.result()[0] for one in waiting]
