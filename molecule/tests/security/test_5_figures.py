"""The figures of the fleet's security, as a user sees them."""

from __future__ import annotations

import json
import re

from cases import NODES
from testbed import ROOT, play

APPS = ("echo", "twin", "echo-shut", "twin-shut")
SERVICES = (*APPS, "nginx", "nginx-health")


def test_figures() -> None:
    """Each node is measured, and no target missed but by the apps' ports, for no firewall is here."""
    options = ("-e", f"@{ROOT}/molecule/security/group_vars/all.yml", "-e", "security_format=json")
    run = play("playbooks/security.yml", *options)
    assert run.rc == 0, run.output
    figures = json.JSONDecoder().raw_decode(run.output, re.search(r"^\[$", run.output, re.MULTILINE).start())[
        0
    ]
    for node in NODES:
        found = {one["figure"]: one for one in figures if one["host"] == node}
        ports = set(found.pop("open ports")["measured"].split(", "))
        # Where systemd can filter by address, those of the apps are closed even so.
        assert {"22", "80"} <= ports <= {"22", "80", "8080", "8081", "8082", "8083"}
        assert found.pop("findings of gixy")["measured"] == "none"
        # Of each app one in each slot that was written.
        assert re.fullmatch(r"([4-9]|1\d) files, all closed", found.pop("secrets")["measured"])
        assert re.fullmatch(r"[1-9]\d* files, all closed", found.pop("locks")["measured"])
        assert found.pop("ports that apps opened")["measured"] == "none"
        found.pop("Landlock")  # the kernel is that of the machine with the nodes
        services = {re.sub("-(blue|green)(?=[.])", "", figure) for figure in found}
        assert services == {f"exposure of {name}.service" for name in SERVICES}
        assert [one for one in found.values() if not one["ok"]] == []
