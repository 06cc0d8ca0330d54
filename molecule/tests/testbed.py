"""What the tests of a scenario share: its nodes, playbooks as users run them, the probe as judge."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TESTBED = ROOT / "molecule/testbed"
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
INVENTORY = EPHEMERAL / "inventory"
INSTANCES = yaml.safe_load(Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).read_text())
NODES = {node["instance"]: node for node in INSTANCES}
# The whole matrix takes an hour: `make test-all`.
FULL = os.environ.get("PADDOCK_FULL") == "1"
RATE = "50" if FULL else "25"
# molecule/testbed/ledger.py answers the last three.
PROBE = ("--get", "/requestme", "--ws", "/welcome/ws", "--slow", "/requestme?seconds=5")
PROBE += ("--post", "/requestme", "--ledger", "/requestme?run={run}")
# Molecule has Ansible write in colors.
PLAIN = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}


def sample(cases: Iterable[Any], keep: int = 1) -> list[Any]:
    """Return the cases of a test, of which `make test` runs only the first ones."""
    every = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [
        pytest.param(*case, marks=[] if number < keep else pytest.mark.full)
        for number, case in enumerate(every)
    ]


def sh(node: str, command: str, check: bool = True, text: str = "") -> str:
    """Run a shell command on a node; returns what it printed."""
    argv = ["podman", "exec", "-i", NODES[node]["container"], "sh", "-c", command]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0 or not check, f"{node}: {command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


class Run(NamedTuple):
    """What a run of a playbook did."""

    rc: int
    output: str
    seconds: float

    @property
    def changed(self) -> int:
        """Changed tasks, over all hosts; -1 where the run had no recap."""
        counts = re.findall(r"changed=(\d+)", self.output)
        return sum(map(int, counts)) if counts else -1


def command(playbook: str, *arguments: str) -> list[str]:
    """The command of a run in this scenario."""
    return [
        *("ansible-playbook", "-i", str(INVENTORY), "-e", f"@{TESTBED}/vars.yml"),
        *(*arguments, playbook),
    ]


def play(playbook: str, *arguments: str, env: dict[str, str] | None = None) -> Run:
    """Run a playbook to its end."""
    began = time.monotonic()
    done = subprocess.run(
        command(playbook, *arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, **PLAIN, **(env or {})},
    )
    return Run(done.returncode, done.stdout + done.stderr, time.monotonic() - began)


def begin(playbook: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Begin a run of a playbook, whose output can be read."""
    return subprocess.Popen(
        command(playbook, *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **PLAIN, **(env or {})},
    )


@contextmanager
def killed(playbook: str, *arguments: str) -> Iterator[None]:
    """Begin a run, and kill it with all its processes here at the end of the block."""
    argv = command(playbook, *arguments)
    run = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        assert run.poll() is None, "the run was over before it was killed"
    finally:
        _kill_family(run.pid)
        run.wait()


def _kill_family(parent: int) -> None:
    """SIGKILL a process and all below it: Ansible's workers leave its process group."""
    os.kill(parent, signal.SIGSTOP)  # it starts no more of them
    family = [parent]
    for pid in family:
        with suppress(OSError):
            family += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


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


@contextmanager
def probed(url: str, folder: Path, *options: str) -> Iterator[Report]:
    """Have the probe ask a URL meanwhile."""
    path = folder / f"probe-{time.monotonic_ns()}.json"
    argv = [sys.executable, "-m", "paddock_probe", "--url", url, "--rate", RATE, "--seconds", "3600", *PROBE]
    argv += ["--json", str(path), "--picture", str(path.with_suffix(".svg"))]
    argv += ["--history", str(path.with_suffix(".jsonl")), *options]
    probe = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    report = Report(path)
    assert probe.stdout
    # It says after some seconds how it goes.
    first = probe.stdout.readline()
    assert " sent, " in first, first + probe.stdout.read()
    try:
        yield report
    finally:
        time.sleep(2)
        probe.send_signal(signal.SIGINT)
        report.text = probe.communicate(timeout=90)[0]
    report.content = json.loads(path.read_text())
    lines = path.with_suffix(".jsonl").read_text().splitlines()
    report.history = [json.loads(line) for line in lines]
