"""A good release loses nothing, and a rollback neither."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fleet import BACKENDS
from testbed import FULL


def test_rolling_releases(fleet: Any) -> None:
    """Forth and back, under load, with slow requests in flight: no request fails, none is executed twice.

    Each host switches once a deploy, on the same listening socket, and Nginx is not touched.
    """
    deploys = 10 if FULL else 2
    sockets = fleet.sockets()
    workers = "cat /proc/$(cat /run/nginx.pid)/task/*/children"
    before = fleet.sh("lb1", workers)
    seen = [fleet.serving()]
    with fleet.probed() as probe:
        for number in range(deploys):
            fleet.write("One line is new." if number % 2 == 0 else "Thank you for requesting me.")
            with fleet.slow_requests(20 if FULL else 12) as statuses:
                run = fleet.run()
            assert run.rc == 0, run.output
            assert statuses == [200] * 4
            for node in BACKENDS:
                assert len(re.findall(rf"^{node}: requestme: ", run.output, re.MULTILINE)) == 1
            seen.append(fleet.serving())
            assert set(seen[-1].values()).isdisjoint(seen[-2].values())
    probe.assert_clean(posts=1000 if FULL else 100)
    if FULL:
        assert probe.content["planned"] >= 10_000
    assert {server["release"] for server in probe.content["servers"]} == {
        release for releases in seen for release in releases.values()
    }
    assert {server["backend"] for server in probe.content["servers"]} == set(BACKENDS)
    assert fleet.sockets() == sockets
    assert fleet.sh("lb1", workers) == before != ""


@pytest.fixture
def one_backend(fleet: Any) -> Iterator[tuple[str, ...]]:
    """Arguments by which the balancer knows one backend only."""
    arguments = ("-e", '{"__fleet_backends": ["app1"]}')
    assert fleet.run("playbooks/balancers.yml", *arguments).rc == 0
    yield arguments
    assert fleet.run("playbooks/balancers.yml").rc == 0


@pytest.mark.full
def test_one_backend(fleet: Any, one_backend: tuple[str, ...]) -> None:
    """Where nothing can take over, the two slots of the one host do."""
    before = fleet.serving()["app1"]
    fleet.write("All alone.")
    with fleet.probed() as probe:
        run = fleet.run("site.yml", *one_backend)
    assert run.rc == 0, run.output
    probe.assert_clean()
    assert {(server["backend"], server["release"]) for server in probe.content["servers"]} == {
        ("app1", before),
        ("app1", fleet.serving()["app1"]),
    }


def test_rollback(fleet: Any) -> None:
    """One command brings the release before it back on every host; no client notices, nothing is built."""
    first = fleet.serving()
    fleet.write("To be rolled back.")
    assert fleet.run().rc == 0
    second = fleet.serving()
    made = fleet.sh("app1", "ls -t /srv/requestme/releases /srv/requestme/environments")
    fleet.write("A syntax error, which is not asked for.", "def (")
    with fleet.probed() as probe:
        run = fleet.run("playbooks/rollback.yml")
    assert run.rc == 0, run.output
    assert fleet.serving() == first != second
    probe.assert_clean()
    assert fleet.sh("app1", "ls -t /srv/requestme/releases /srv/requestme/environments") == made
    # The release that was left is bad, so the next rollback does not choose it again.
    bad = fleet.sh("app1", "grep -r . /srv/requestme/bad")
    assert second["app1"] in bad
    assert "left by a rollback of" in bad
    # Nor does a deploy with nothing edited bring it back.
    fleet.write("To be rolled back.")
    again = fleet.run()
    assert (again.rc, again.changed) == (0, 0), again.output
    assert fleet.serving() == first
    assert f"requestme {second['app1']} is held back: left by a rollback of" in again.output
    assert f"{first['app1']} serves." in again.output


@pytest.mark.full
def test_other_apps_are_deployed_meanwhile(fleet: Any) -> None:
    """A deploy of another app leaves the rollback as it is; -e app= changes that app alone."""
    held, before = fleet.serving(), fleet.serving("welcome")
    page = fleet.source / "welcome/app.py"
    kept = page.read_text()
    page.write_text(kept + "\n# One comment more.\n")
    unknown = fleet.run("site.yml", "-e", "app=welcom")
    assert (unknown.rc != 0, unknown.changed) == (True, 0), unknown.output
    assert 'app is "welcom"; allowed: requestme, welcome' in unknown.output
    one = fleet.run("site.yml", "-e", "app=requestme", "--check")
    assert (one.rc, one.changed) == (0, 0), one.output
    run = fleet.run("site.yml", "-e", "app=welcome")
    assert run.rc == 0, run.output
    assert set(fleet.serving("welcome").values()).isdisjoint(before.values())
    assert fleet.serving() == held
    page.write_text(kept)
    assert fleet.run("playbooks/rollback.yml", "-e", "app=welcome").rc == 0
    assert fleet.serving("welcome") == before


@pytest.mark.full
def test_a_bad_release_is_deployed_if_asked_for(fleet: Any) -> None:
    """Or when its content changes; then it is good and no more held back."""
    held = fleet.serving()
    run = fleet.run("site.yml", "-e", "redeploy_bad=true")
    assert run.rc == 0, run.output
    now = fleet.serving()
    assert set(now.values()).isdisjoint(held.values())
    again = fleet.run()
    assert (again.rc, again.changed) == (0, 0), again.output
    assert "held back" not in again.output
    assert fleet.run("playbooks/rollback.yml").rc == 0
    assert fleet.serving() == held
    fleet.write("Other content.")
    assert fleet.run().rc == 0
    assert set(fleet.serving().values()).isdisjoint({*held.values(), *now.values()})
    # The mark outlives the folder, which the next release may have taken away.
    fleet.write("To be rolled back.")
    assert fleet.run().changed == 0
    fleet.write("Thank you for requesting me.")
    assert fleet.run().rc == 0


def test_the_output_is_short_and_ends_with_a_report(fleet: Any) -> None:
    """Each changed app on each host, and where the fleet is; a screen for the rest."""
    before = fleet.serving()
    fleet.write("A line for the report.")
    run = fleet.run()
    assert run.rc == 0, run.output
    report = run.output.partition("PLAY RECAP")[2].partition("\n\n")[2].strip().splitlines()
    assert report[0].split() == ["host", "app", "before", "now", "s"]
    for line, (node, release) in zip(report[1:], fleet.serving().items(), strict=False):
        assert line.split()[:4] == [node, "requestme", before[node], release]
    assert re.fullmatch(r"http://[\d.:]+", report[-1])
    assert len(run.output.splitlines()) < 60, run.output
    idle = fleet.run()
    assert len(idle.output.splitlines()) < 30, idle.output
    assert "Unchanged: 6 of 6" in idle.output


@pytest.mark.full
def test_rollback_to_a_release(fleet: Any) -> None:
    """Any release that is on every host may be named; to go where one is changes nothing."""
    here = fleet.serving()
    good = re.findall(r"[0-9a-f]{12}", fleet.sh("app1", "ls /srv/requestme/good"))
    there = next(release for release in good if release not in here.values())
    run = fleet.run("playbooks/rollback.yml", "-e", f"release={there}")
    assert run.rc == 0, run.output
    assert set(fleet.serving().values()) == {there}
    again = fleet.run("playbooks/rollback.yml", "-e", f"release={there}")
    assert (again.rc, again.changed) == (0, 0), again.output
    assert f"requestme serves {there} on every backend already" in again.output
    back = fleet.run("playbooks/rollback.yml", "-e", f"release={here['app1']}")
    assert back.rc == 0, back.output
    assert fleet.serving() == here


@pytest.mark.full
def test_rollback_to_nowhere(fleet: Any) -> None:
    """A release that is not there, an app that is not, and an app with one release only: said, not done."""
    before = (fleet.serving(), fleet.serving("welcome"))
    for arguments, words in {
        "release=000000000000": "release is '000000000000'; allowed: one that every backend has",
        "app=nobody": 'app is "nobody"; allowed: requestme, welcome',
        "app=welcome,requestme": "allowed: requestme, welcome",
    }.items():
        run = fleet.run("playbooks/rollback.yml", "-e", arguments)
        assert (run.rc != 0, run.changed) == (True, 0), run.output
        assert words in run.output
        assert "Nothing was changed" in run.output or "allowed" in run.output
    assert (fleet.serving(), fleet.serving("welcome")) == before


def test_history(fleet: Any) -> None:
    """Every change is a line on the host, with who, when, from, to, outcome and seconds."""
    lines = fleet.sh("app1", "cat /var/lib/paddock/history.jsonl").splitlines()
    last = json.loads(lines[-1])
    assert {"who", "when", "run", "app", "from", "to", "outcome", "seconds"} <= set(last)
    assert last["to"] == fleet.serving()["app1"]
    run = fleet.run("playbooks/history.yml")
    assert re.search(rf"app1 +requestme +{last['from']} +{last['to']} +serves", run.output), run.output
