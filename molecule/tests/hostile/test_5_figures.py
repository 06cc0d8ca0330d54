"""The figures of the fleet's security, as a user sees them."""

from __future__ import annotations

import json
import os
import re
import subprocess

from cases import NODES
from wire import EPHEMERAL, ROOT, SCENARIO

SERVICES = ("echo", "twin", "echo-shut", "twin-shut", "nginx", "nginx-health")


def test_figures() -> None:
    """Each node is measured, and no target missed but by the apps' ports, for no firewall is here."""
    command = ["ansible-playbook", "-i", str(EPHEMERAL / "inventory"), "playbooks/security.yml"]
    command += ["-e", f"@{ROOT}/molecule/testbed/vars.yml", "-e", f"@{SCENARIO}/group_vars/all.yml"]
    command += ["-e", "security_format=json"]
    json_too = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=json_too)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout.partition("TASK [Show them]")[2]
    figures = json.JSONDecoder().raw_decode(shown, shown.index("{"))[0]["msg"]
    for node in NODES:
        found = {one["figure"]: one for one in figures if one["host"] == node}
        ports = set(found.pop("open ports")["measured"].split(", "))
        # Where systemd can filter by address, those of the apps are closed even so.
        assert {"22", "80"} <= ports <= {"22", "80", "8080", "8081", "8082", "8083"}
        assert found.pop("findings of gixy")["measured"] == "none"
        services = {re.sub("-(blue|green)(?=[.])", "", figure) for figure in found}
        assert services == {f"exposure of {name}.service" for name in SERVICES}
        assert [one for one in found.values() if not one["ok"]] == []
