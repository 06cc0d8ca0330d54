"""A run, or a host, may die at any moment: what serves goes on, and the next run finishes the job."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import BACKENDS
from testbed import FULL, ROOT, sample

KILL = {
    "ANSIBLE_CALLBACK_PLUGINS": f"{ROOT}/plugins/callback:{Path(__file__).parent}/callbacks",
    "ANSIBLE_CALLBACKS_ENABLED": "kill_at",
}
# Tasks of a release at which a run dies: by name, and how many of that name come before.
POINTS = [
    ("gunicorn : Start the new releases", 1, "SIGKILL"),
    ("gunicorn : Check that the releases", 0, "SIGINT"),
    ("app : Create the releases", 0, "SIGTERM"),
    ("gunicorn : Start the new releases", 0, "SIGKILL"),
    ("Check them through the balancer", 0, "SIGKILL"),
]


def tasks(output: str) -> list[str]:
    """Names of the tasks of a run, in their order."""
    return re.findall(r"^TASK \[(?:paddock\.fleet\.)?(.*?)\] \*", output, re.MULTILINE)


@pytest.fixture(scope="module")
def names(fleet: Any) -> list[str]:
    """Tasks of a release, skipped ones too."""
    fleet.write("To see the tasks.")
    run = fleet.run(env={"ANSIBLE_STDOUT_CALLBACK": "default", "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true"})
    assert run.rc == 0, run.output
    return tasks(run.output)


@pytest.fixture(scope="module")
def probe(fleet: Any) -> Iterator[Any]:
    """One probe for all deaths."""
    with fleet.probed() as report:
        yield report
    report.assert_clean()


def die(fleet: Any, at: int, signal: str, after: float) -> None:
    """Kill a deploy, then deploy again, and once more."""
    fleet.write(f"Killed by {signal} at {at}, {after} s.")
    before = set(fleet.serving().values())
    environment = {"KILL_AT": str(at), "KILL_SIGNAL": signal, "KILL_AFTER": str(after)}
    killed = fleet.run(env={**KILL, **environment})
    assert killed.rc != 0, killed.output
    assert "PLAY RECAP" not in killed.output or signal == "SIGINT"
    status, body = fleet.get()
    assert status == 200, body
    again = fleet.run()
    assert again.rc == 0, again.output
    after_ = set(fleet.serving().values())
    assert len(after_) == 1
    assert after_.isdisjoint(before)
    for node in BACKENDS:
        assert "preflight" not in fleet.sh(
            node, "systemctl list-units --all --plain --no-legend; ls /run/systemd/system"
        )
    third = fleet.run()
    assert (third.rc, third.changed) == (0, 0), third.output
    assert not fleet.sh("lb1", "ls /var/lib/paddock/deploy.lock", check=False)


@pytest.mark.parametrize(("task", "before", "signal"), sample(POINTS))
def test_killed(fleet: Any, probe: Any, names: list[str], task: str, before: int, signal: str) -> None:
    """While a task is under way. The dead run's lock is taken over, for its process is gone."""
    places = [number for number, name in enumerate(names, 1) if name.startswith(task)]
    die(fleet, places[before], signal, 0.3)


@pytest.mark.skipif(not FULL, reason="make test-all")
def test_killed_at_every_task(fleet: Any, probe: Any, names: list[str]) -> None:
    """With SIGKILL as a task begins."""
    for at in range(1, len(names) + 1):
        die(fleet, at, "SIGKILL", 0)


def test_two_at_once(fleet: Any) -> None:
    """The second ends within 5 s and says who deploys; what the first brings stays."""
    fleet.write("First come, first served.")
    first = fleet.begin()
    try:
        while not fleet.sh("lb1", "ls /var/lib/paddock/deploy.lock", check=False):
            assert first.poll() is None
            time.sleep(0.1)
        second = fleet.run()
        assert second.rc != 0
        assert re.search(r"\S+@\S+ deploys this fleet since \d{4}-", second.output), second.output
        assert "playbooks/unlock.yml" in second.output
        assert second.changed == 0
    finally:
        output = first.communicate()[0]
    assert first.returncode == 0, output
    assert fleet.get()[1].count("First come, first served.") == 1


@pytest.mark.full
def test_a_lock_of_another_machine(fleet: Any) -> None:
    """It is refused while it is fresh, taken over when it has expired, and removed by unlock.yml."""
    holder = {"run": "elsewhere", "by": "ann@laptop", "machine": "laptop", "pid": 1, "started": ""}
    lock = json.dumps({**holder, "since": "2026-01-01 00:00:00 UTC"})
    write = f"echo '{lock}' > /var/lib/paddock/deploy.lock"
    fleet.sh("lb1", write)
    run = fleet.run()
    assert run.rc != 0
    assert "ann@laptop deploys this fleet since 2026-01-01 00:00:00 UTC" in run.output
    unlock = fleet.run("playbooks/unlock.yml")
    assert unlock.rc == 0, unlock.output
    assert "It was held by ann@laptop" in unlock.output
    assert "It was not held." in fleet.run("playbooks/unlock.yml").output
    fleet.sh("lb1", f"{write}; touch -d '16 minutes ago' /var/lib/paddock/deploy.lock")
    run = fleet.run()
    assert run.rc == 0, run.output
    assert "Going on with the deploy that ann@laptop began" in run.output


def test_a_run_that_goes_on_returns_as_a_whole(fleet: Any, names: list[str]) -> None:
    """A run is killed with one host switched. The next one fails, and takes that host back too."""
    before = fleet.serving()
    fleet.write("Half way.")
    place = [
        number for number, name in enumerate(names, 1) if name.startswith("gunicorn : Start the new releases")
    ][1]
    fleet.run(env={**KILL, "KILL_AT": str(place), "KILL_SIGNAL": "SIGKILL", "KILL_AFTER": "0"})
    now = fleet.serving()
    assert now["app1"] != before["app1"]
    assert now["app3"] == before["app3"]
    trap = '#!/bin/sh\ncase "$*" in *"start requestme-"[bg]*) exit 1; esac\nexec /usr/bin/systemctl "$@"\n'
    fleet.sh("app3", f"printf '%s' '{trap}' > /usr/local/bin/systemctl; chmod +x /usr/local/bin/systemctl")
    try:
        run = fleet.run()
    finally:
        fleet.sh("app3", "rm /usr/local/bin/systemctl")
    assert run.rc != 0
    assert fleet.serving() == before
