"""What a host goes back to when a change of a setting fails, or when the app was down before the run."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed import play

TAKEN = 8190
HOLDER = f"""
import socket, time
held = socket.create_server(("0.0.0.0", {TAKEN}))
open("/run/held", "w").close()
time.sleep(3600)
"""
ROLL_BACK = """
- hosts: all
  become: true
  gather_facts: false
  vars: {gunicorn_trusted_proxies: [192.0.2.1]}
  tasks:
    - ansible.builtin.import_role: {name: paddock.fleet.gunicorn, tasks_from: roll_back}
"""
DOWN = "/var/lib/paddock/echo/down"
# An app whose database is down, say.
DEPENDS = f"\nimport os, sys\nif os.path.exists({DOWN!r}):\n    sys.exit('there is no database')\n"


@pytest.fixture
def echo(fleet: Any) -> Iterator[Any]:
    """The fleet; the entry of echo, its code and its run are put back afterwards."""
    apps, source = copy.deepcopy(fleet.apps), fleet.source / "echo/app.py"
    code = source.read_text()
    yield fleet
    fleet.apps, fleet.settings = apps, {}
    source.write_text(code)


def test_a_port_that_cannot_be_had(echo: Any, nodes: list[Any]) -> None:
    """The run fails, and the app serves where it served, with nothing left to do."""
    echo.run("--skip-tags", "python")
    before = [node.release("echo") for node in nodes]
    for node in nodes:
        node.sh(f"cat > /tmp/hold.py <<'END'\n{HOLDER}\nEND")
        node.sh("rm -f /run/held; systemd-run -q --unit=holder python3 /tmp/hold.py")
        node.sh("until [ -e /run/held ]; do sleep 0.1; done")
    port = echo.app("echo")["port"]
    try:
        echo.app("echo")["port"] = TAKEN
        run = echo.configure(rc=2)
        assert "the release from before stays live" in " ".join(run.output.split())
    finally:
        echo.app("echo")["port"] = port
        for node in nodes:
            node.sh("systemctl stop holder")
    assert [node.release("echo") for node in nodes] == before
    assert echo.configure().changed == 0


@pytest.mark.full
def test_an_app_that_was_down_is_not_removed(echo: Any, nodes: list[Any], tmp_path: Path) -> None:
    """A run that goes back leaves the release from before; it cannot start yet, and starts when it can."""
    source = echo.source / "echo/app.py"
    code = source.read_text()
    source.write_text(code + DEPENDS)
    echo.run("--skip-tags", "python")
    before = [node.release("echo") for node in nodes]
    for node in nodes:
        node.sh(f"touch {DOWN}; systemctl restart 'echo-*.service'", check=False)
    # The fix does not need it.
    source.write_text(f"{code}\n# {secrets.token_hex()}\n")
    echo.settings["gunicorn_run"] = {"id": f"20260101T000000Z-{secrets.token_hex(4)}"}
    echo.settings["gunicorn_readiness"] = {"boot_timeout": 10, "watch_seconds": 0}
    echo.run("--skip-tags", "python")
    assert {node.release("echo") for node in nodes}.isdisjoint(before)
    (tmp_path / "back.yml").write_text(ROLL_BACK)
    done = play(str(tmp_path / "back.yml"), *echo.options())
    assert done.rc == 0, done.output
    for node in nodes:
        node.sh(f"rm {DOWN}; systemctl reset-failed; systemctl start echo.socket")
        assert node.http(8080).status == 200
    assert [node.release("echo") for node in nodes] == before
