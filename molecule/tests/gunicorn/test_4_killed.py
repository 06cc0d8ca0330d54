"""A run may die at any moment: what serves goes on, and the next run finishes the job."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from testbed import sample

# Kills the module after its nth call of systemctl that changes something.
TRAP = """#!/bin/sh
case "$*" in *" show "*) exec /usr/bin/systemctl "$@" ;; esac
calls=$(cat /run/trap/calls); echo $((calls + 1)) > /run/trap/calls
test "$calls" != "$(cat /run/trap/deadly)" || {
  touch /run/trap/sprung; /usr/bin/systemctl "$@"; kill -9 $PPID; exit
}
exec /usr/bin/systemctl "$@"
"""
PLACE = "/usr/local/bin/systemctl"
# On each node another call. They start and stop the preflight slot (5, 6), read the unit of
# the idle slot (11), start it (14), lead the socket and the boot to it (15), stop the other one (16).
CALLS = [[5, 14], [11, 15], [6, 16]]


@pytest.fixture(scope="module")
def trapped(nodes: list[Any]) -> Iterator[None]:
    """Have traps on the nodes."""
    for node in nodes:
        node.sh(f"mkdir -p /run/trap && cat > {PLACE} <<'END'\n{TRAP}END\nchmod +x {PLACE}")
    yield
    for node in nodes:
        node.sh(f"rm -rf {PLACE} /run/trap")


@pytest.mark.parametrize("deadly", sample(CALLS))
def test_module_killed(fleet: Any, nodes: list[Any], trapped: None, load: Any, deadly: list[int]) -> None:
    """SIGKILL at a call of systemctl."""
    fleet.app("echo")["environment"]["GENERATION"] = str(deadly)
    with contextlib.ExitStack() as stack:
        loads = [stack.enter_context(load(lambda node=node: node.http(8080), pause=0.1)) for node in nodes]
        for node, call in zip(nodes, deadly, strict=True):
            node.sh(f"cd /run/trap; rm -f sprung; echo 1 > calls; echo {call} > deadly")
        fleet.configure(rc=2)
        for node in nodes:
            node.sh("cd /run/trap; test -e sprung; echo never > deadly")
        fleet.configure()
    assert [traffic.failures for traffic in loads] == [[], []]
    for node in nodes:
        node.slot("echo")
        assert node.http(8080).json["environment"]["GENERATION"] == str(deadly)
    assert fleet.configure().changed == 0


# The slot that is under way when the run dies.
MOMENTS = {
    "while it is checked": "echo-preflight.service",
    "while it takes over": "echo-{idle}.service",
}


@pytest.mark.parametrize("moment", sample(MOMENTS))
def test_run_killed(fleet: Any, nodes: list[Any], load: Any, until: Any, moment: str) -> None:
    """SIGKILL of ansible-playbook; what it began works on there, and the next run wants something else."""
    node = nodes[0]
    idle = "green" if node.slot("echo").color == "blue" else "blue"
    unit = MOMENTS[moment].format(idle=idle)
    fleet.app("echo")["environment"] |= {"GENERATION": f"killed {moment}", "BOOT_SECONDS": "4"}
    with load(lambda: node.http(8080), pause=0.1) as traffic:
        with fleet.killed("--tags", "gunicorn", "--limit", node.name):
            until(
                lambda: node.sh(f"systemctl is-active {unit}", check=False) == "activating",
                f"{unit} boots",
                40,
            )
        fleet.app("echo")["environment"] |= {"GENERATION": f"after {moment}", "BOOT_SECONDS": "0"}
        fleet.configure("--limit", node.name)
    assert traffic.failures == []
    node.slot("echo")
    assert node.http(8080).json["environment"]["GENERATION"] == f"after {moment}"
    assert fleet.configure("--limit", node.name).changed == 0
