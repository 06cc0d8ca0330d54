"""A release that does not work changes nothing, wherever it fails."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from fleet import BACKENDS
from testbed import FULL, ROOT

READY = '@app.get("/readyz")'


@dataclass(frozen=True)
class Kind:
    """A way in which a release is broken."""

    says: str
    code: str = ""
    edit: Callable[[str], str] = lambda text: text
    lock: Callable[[str], str] = lambda text: text
    app: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    always: bool = False


def late(text: str) -> str:
    """Exit some seconds after the start, as an app does that loses what it needs."""
    return text + "\nimport threading\nthreading.Timer(5, os._exit, (3,)).start()\n"


KINDS = {
    "syntax error": Kind("SyntaxError", code="def (", always=True),
    "import error": Kind("No module named 'nowhere'", code="import nowhere\n"),
    "missing dependency": Kind(
        "No module named 'flask'", lock=lambda text: re.sub(r"(?ms)^flask==.*?(?=^\S)", "", text)
    ),
    "bad wheel hash": Kind(
        "has another hash on the index", lock=lambda text: re.sub("(?<=sha256:)[0-9a-f]{8}", "00000000", text)
    ),
    "missing credential": Kind("KeyError: 'PAYMENT_KEY'", code='os.environ["PAYMENT_KEY"]\n'),
    "wrong name": Kind("application", app={"entrypoint": "app:application"}),
    "raises in its factory": Kind("Error: no database", code='raise RuntimeError("no database")\n'),
    "not ready": Kind(
        "status 404, want 200", edit=lambda text: text.replace("/readyz", "/other"), always=True
    ),
    "hangs when asked": Kind(
        "timed out",
        edit=lambda text: text.replace(
            "def readyz() -> dict[str, str]:",
            "def readyz() -> dict[str, str]:\n    __import__('time').sleep(60)",
        ),
        settings={"gunicorn_readiness": {"boot_timeout": 20, "watch_seconds": 0}},
    ),
    "exits after 5 s": Kind(
        "was ready, and then failed",
        edit=late,
        settings={"gunicorn_readiness": {"watch_seconds": 6}},
        always=True,
    ),
    "wrong framework": Kind("tornado is missing", app={"framework": "tornado"}),
}


@pytest.fixture(scope="module")
def probe(fleet: Any) -> Iterator[Any]:
    """One probe for all kinds."""
    with fleet.probed() as report:
        yield report
    report.assert_clean()


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if FULL or kind.always])
def test_a_broken_release(fleet: Any, probe: Any, name: str) -> None:
    """The run fails within 90 s and says why; every host serves what it served."""
    kind = KINDS[name]
    before, sockets = fleet.serving(), fleet.sockets()
    lock = fleet.source / "requestme/requirements.txt"
    good_lock = lock.read_text()
    fleet.write(name, kind.code)
    app = fleet.source / "requestme/app.py"
    app.write_text(kind.edit(app.read_text()))
    lock.write_text(kind.lock(good_lock))
    apps = yaml.safe_load((ROOT / "inventory/group_vars/all/apps.yml").read_text())["apps"]
    apps[0] |= kind.app
    try:
        run = fleet.run("site.yml", "-e", json.dumps({"apps": apps, **kind.settings}))
    finally:
        lock.write_text(good_lock)
    assert run.rc != 0
    assert run.seconds < 90
    assert kind.says in run.output, run.output
    assert fleet.serving() == before
    assert fleet.sockets() == sockets


def test_the_reason_is_in_a_table(fleet: Any, probe: Any) -> None:
    """Each host, what it served before and now, and why."""
    before = fleet.serving()
    fleet.write("Nothing imports this.", "import nowhere\n")
    run = fleet.run()
    for node in BACKENDS:
        state = rf"{node} +requestme +{before[node]} +{before[node]}"
        row = rf"{state} +requestme \w+ is not ready on {node}"
        assert re.search(rf"{row}: ModuleNotFoundError: No module named 'nowhere'", run.output), run.output


# What boots in the preflight there does not start in its slot.
TRAP = """#!/bin/sh
case "$*" in *"start requestme-blue"*|*"start requestme-green"*) echo "no such luck" >&2; exit 1; esac
exec /usr/bin/systemctl "$@"
"""


@pytest.fixture
def unlucky(fleet: Any) -> Iterator[str]:
    """A backend on which the release fails after others have switched."""
    place = "/usr/local/bin/systemctl"
    fleet.sh("app2", f"cat > {place} <<'END'\n{TRAP}END\nchmod +x {place}")
    yield "app2"
    fleet.sh("app2", f"rm {place}")


def test_the_fleet_returns(fleet: Any, unlucky: str) -> None:
    """One host fails after others have switched: all return to what they served, and a table says so."""
    before = fleet.serving()
    fleet.write("Good, but not everywhere.")
    with fleet.probed() as probe:
        run = fleet.run()
    assert run.rc != 0
    assert f"is not ready on {unlucky}" in run.output
    tried = set(re.findall(r"returned from (\w+)", run.output))
    assert len(tried) == 1, run.output
    assert fleet.serving() == before
    assert tried.isdisjoint(before.values())
    probe.assert_clean()
    # It was tried for real: app1 served it.
    assert tried <= {server["release"] for server in probe.content["servers"]}
    (bad,) = tried
    for node in BACKENDS:
        assert fleet.sh(node, f"ls /srv/requestme/bad | grep -c {bad}") == "1"


def test_what_the_fleet_left_is_held_back(fleet: Any) -> None:
    """The next run of anything does not bring it back, though the cause has gone."""
    before = fleet.serving()
    run = fleet.run()
    assert (run.rc, run.changed) == (0, 0), run.output
    assert fleet.serving() == before
    assert re.search(r"requestme \w+ is held back: app2: requestme \w+ is not ready on app2", run.output)


@pytest.mark.full
def test_the_fleet_returns_with_tags(fleet: Any, unlucky: str) -> None:
    """A run of some tags only goes back, too."""
    before = fleet.serving()
    fleet.write("Good, but only in part.")
    run = fleet.run("site.yml", "--tags", "app,gunicorn")
    assert run.rc != 0
    assert f"is not ready on {unlucky}" in run.output
    assert re.search(r"returned from \w+", run.output), run.output
    assert fleet.serving() == before
    assert "It was not held." in fleet.run("playbooks/unlock.yml").output


@pytest.mark.full
def test_partial_if_asked_for(fleet: Any, unlucky: str) -> None:
    """With one failure allowed the others keep the new release; the run still fails and says who has what."""
    before = fleet.serving()
    fleet.write("Good enough for two.")
    run = fleet.run("site.yml", "-e", "fleet_max_failures=1")
    assert run.rc != 0
    now = fleet.serving()
    assert now["app1"] == now["app3"] != before["app1"]
    assert re.search(r"app1 +requestme +\w+ +\w+ +keeps the new release", run.output), run.output


def test_the_next_good_run_works(fleet: Any) -> None:
    """What went before leaves nothing behind."""
    fleet.write("Good again.")
    run = fleet.run()
    assert run.rc == 0, run.output
    assert len(set(fleet.serving().values())) == 1
    again = fleet.run()
    assert (again.rc, again.changed) == (0, 0), again.output
