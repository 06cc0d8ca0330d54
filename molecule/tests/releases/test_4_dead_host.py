"""A host may die in a deploy: the fleet goes on, and the next run takes it along again."""

from __future__ import annotations

import re
import subprocess
import time
from typing import Any

import pytest
from testbed import NODES


@pytest.mark.parametrize(
    "moment",
    [
        "app1: requestme: ",
        pytest.param(
            "TASK [paddock.fleet.gunicorn : Check that the releases are ready]", marks=pytest.mark.full
        ),
    ],
)
def test_a_host_that_dies(fleet: Any, moment: str) -> None:
    """While it checks or serves the new release: the others stay, or return; a table names the dead one."""
    before = fleet.serving()
    fleet.write(f"A host is about to die: {moment}")
    container = NODES["app3"]["container"]
    with fleet.probed() as probe:
        # Ansible's own callback names a task when it begins.
        run, output, dead = fleet.begin(env={"ANSIBLE_STDOUT_CALLBACK": "default"}), "", False
        try:
            for line in run.stdout or ():
                output += line
                if line.startswith(moment) and not dead:
                    subprocess.run(["podman", "kill", container], check=True, capture_output=True)
                    dead = True
        finally:
            run.wait()
            subprocess.run(["podman", "start", container], check=True, capture_output=True)
        fleet.sh("app3", "systemctl is-system-running --wait", check=False)
        while fleet.run("playbooks/history.yml").rc != 0:
            time.sleep(0.5)
    assert dead, output
    assert run.returncode != 0
    assert re.search(r"app3 +- +\? +\? ", output), output
    assert "changed: [lb1]" not in output
    others = ("app1", "app2")
    assert fleet.serving(nodes=others) == {node: before[node] for node in others}
    # What was under way on the dead host is lost, where it may not be sent twice; nothing else is.
    lost = [one for one in probe.content["failures"] if one["client"] != "raw"]
    assert {one["method"] for one in lost} <= {"POST"}, probe.text
    assert len(lost) <= 3, probe.text
    assert probe.content["ledger"]["twice"] == probe.content["ledger"]["missing"] == []
    again = fleet.run()
    assert again.rc == 0, again.output
    assert len(set(fleet.serving().values())) == 1
