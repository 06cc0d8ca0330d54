"""What `make test` leaves to `make test-all`: the second Debian, and long matrices.

A test with the marker `full` runs only with PADDOCK_FULL=1; so does a parameter with that mark. A test file
that has the same tests for several nodes runs on one of them. The files of a scenario take the nodes in
turns, so each Debian is seen.

A test that fails shows the state of each node: a stopped node and a failed unit look the same to a client.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml

FULL = os.environ.get("PADDOCK_FULL") == "1"
NODES = {
    node["instance"]: node["container"]
    for node in yaml.safe_load(Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).read_text())
}
STATE = (
    "systemctl --failed --plain --no-legend; ss --listening --tcp --numeric --no-header | cut -c-60;"
    " journalctl --priority warning --lines 5 --no-pager --output short-iso"
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the state of the nodes where a test fails."""
    report = yield
    if report.failed:
        report.sections.append(("state of the nodes", "\n".join(map(_state, NODES))))
    return report


def _state(node: str) -> str:
    """Tell whether a node runs, which units failed, its open ports and its last warnings."""
    shown = "{{.State.Status}}, exit {{.State.ExitCode}}, since {{.State.StartedAt}}"
    commands = (
        ["podman", "container", "inspect", "--format", shown, NODES[node]],
        ["podman", "exec", NODES[node], "sh", "-c", STATE],
    )
    said = [
        subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=30
        ).stdout
        for command in commands
    ]
    return f"{node}: {''.join(said)}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only the whole run needs."""
    if FULL:
        return
    files = sorted({item.path for item in items})
    chosen = []
    for file in files:
        nodes = sorted({_node(item) for item in items if item.path == file} - {""})
        chosen.append(nodes[len(chosen) % len(nodes)] if nodes else "")
    kept = [
        item
        for item in items
        if not item.get_closest_marker("full") and _node(item) in ("", chosen[files.index(item.path)])
    ]
    left = [item for item in items if item not in kept]
    config.hook.pytest_deselected(items=left)
    items[:] = kept


def _node(item: pytest.Item) -> str:
    """Name the node that a test was made for; empty if it is made once for all nodes."""
    callspec = getattr(item, "callspec", None)
    for value in callspec.params.values() if callspec else ():
        name = getattr(getattr(value, "backend", None), "host", value)
        if isinstance(name, str) and name in NODES:
            return name
    return ""
