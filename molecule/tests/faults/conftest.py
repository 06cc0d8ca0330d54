"""The fixtures of the tests of faults."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fleet import Fleet
from history import Table
from testbed import ROOT

ABOUT = """\
Written by `make faults`. Each fault is made for real, on a balancer and three backends, while clients ask
at a constant rate; what they saw is what counts. Rows F28 to F38 are releases, in
`molecule/tests/releases`; certificates, F48, are in `molecule/tests/tls`.

A figure may be at most what is expected. *hurt*: when the last request was due that failed or took half a
second longer, from the fault on. *back*: when the backend answered clients again, from when it was healed
on. *p99 ratio*: the fault's p99 against the one before it, of which less than 100 ms counts as 100 ms.
In each row no POST may be executed twice, and none be lost that was acknowledged."""


class FaultyFleet(Fleet):
    """A fleet whose apps have less patience, as the scenario converged it."""

    options = ("-e", f"@{ROOT}/molecule/faults/vars.yml")


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """The fleet, with a copy of its apps to edit."""
    return FaultyFleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="session")
def table() -> Table:
    """The table of this run: build/faults.md and build/faults.json."""
    return Table(ROOT / "build", ABOUT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the table at the end, whatever failed."""
    file = ROOT / "build/faults.md"
    if file.exists():
        terminalreporter.write_line(file.read_text())
