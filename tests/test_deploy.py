"""What a deploy says and chooses: the table of a failure, the target of a rollback, the history, the lock."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def load(path: str) -> ModuleType:
    """Import a plugin from its file."""
    spec = importlib.util.spec_from_file_location(f"paddock_{Path(path).stem}", ROOT / path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


DEPLOY = load("plugins/filter/deploy.py")
HISTORY = load("plugins/filter/history.py")
ROLLBACK = load("plugins/filter/rollback.py")
HELD = load("plugins/filter/held_back.py")
LOCK = load("plugins/action/fleet_lock.py")


def state(before: str | None, now: str | None, tried: str | None = None) -> dict[str, str | None]:
    """What a host says of an app."""
    return {"before": before, "now": now, "tried": tried}


def rows(report: str) -> list[list[str]]:
    """The cells of a table, without its headings."""
    lines = report.split("\n\n")[0].splitlines()
    return [line.split(maxsplit=4) for line in lines[1:]]


def test_report_of_a_return() -> None:
    """One host failed, one had switched, one was never touched."""
    hostvars = {
        "b1": {
            "gunicorn_rolled_back": {"apps": {"shop": state("r1", "r1", "r2"), "live": state("l1", "l1")}}
        },
        "b2": {
            "gunicorn_rolled_back": {"apps": {"shop": state("r1", "r1"), "live": state("l1", "l1")}},
            "__fleet_failure": "shop r2 is not ready on b2; r1 serves.\nTraceback\nKeyError: 'KEY'",
        },
        "b3": {"gunicorn_rolled_back": {"apps": {"shop": state("r1", "r1"), "live": state("l1", "l1")}}},
        "lb": {},
    }
    assert rows(DEPLOY.deploy_report(hostvars, list(hostvars), list(hostvars))) == [
        ["b1", "shop", "r1", "r1", "returned from r2"],
        ["b2", "shop", "r1", "r1", "shop r2 is not ready on b2: KeyError: 'KEY'"],
        ["b3", "shop", "r1", "r1", "unchanged"],
    ]


def test_report_of_a_lost_host() -> None:
    """Nobody knows what a host serves that does not answer."""
    hostvars = {
        "b1": {"gunicorn_rolled_back": {"apps": {"shop": state("r1", "r2")}}},
        "b2": {"gunicorn_rolled_back": {"unreachable": True}},
        "b3": {},
    }
    assert rows(DEPLOY.deploy_report(hostvars, ["b1", "b2", "b3"], ["b1", "b2"])) == [
        ["b1", "shop", "r1", "r2", "keeps the new release"],
        ["b2", "-", "?", "?", "does not answer"],
        ["b3", "-", "?", "?", "does not answer"],
    ]


def test_report_of_what_is_no_app_s() -> None:
    """A package that cannot be had, a balancer that refuses its configuration."""
    hostvars = {
        "b1": {"__fleet_failure": "Task failed: The lookup plugin 'wheels' failed: shop: no wheel"},
        "lb": {"__fleet_failure": "nginx: [emerg] bind() failed\nmore"},
    }
    assert rows(DEPLOY.deploy_report(hostvars, ["b1", "lb"], ["b1", "lb"])) == [
        ["b1", "-", "-", "-", "shop: no wheel"],
        ["lb", "-", "-", "-", "nginx: [emerg] bind() failed"],
    ]


LINE = {
    "app": "shop",
    "from": None,
    "to": "r1",
    "outcome": "serves",
    "seconds": 1.2,
    "who": "ann@x",
    "run": "1",
}


def host(
    now: str | None,
    *releases: tuple[str, float | None, str | None],
    runs: tuple[str, ...] = (),
    held: dict[str, str] | None = None,
) -> Any:
    """What a host lists of the app shop."""
    listed = [
        {"name": f"{one}-py3.13", "release": one, "good": good, "bad": bad} for one, good, bad in releases
    ]
    history = [
        {**LINE, "app": app, "run": "last", "when": "2026-01-02T00:00:00+00:00", "from": "r0", "to": now}
        for app in runs
    ]
    apps = {name: {"now": now, "releases": listed, "held": held or {}} for name in ("shop", "live")}
    return {"gunicorn_listed": {"apps": apps, "history": history}}


def test_rollback_to_the_last_good_release() -> None:
    """That every host has; not to a bad one, nor to one that never served."""
    hostvars = {
        "b1": host("r4", ("r1", 1, None), ("r2", 2, None), ("r3", None, "failed"), ("r4", 4, None)),
        "b2": host("r4", ("r1", 1, None), ("r4", 4, None), ("r5", None, None)),
    }
    choice = ROLLBACK.rollback_target(hostvars, ["b1", "b2"], app="shop")
    assert choice["releases"] == {"shop": "r1"}
    assert choice["says"] == ["shop on b1: r4 -> r1", "shop on b2: r4 -> r1"]


def test_rollback_of_a_mixed_fleet() -> None:
    """After a run that was killed half way: to what both have."""
    hostvars = {"b1": host("r2", ("r1", 1, None), ("r2", 2, None)), "b2": host("r1", ("r1", 1, None))}
    assert ROLLBACK.rollback_target(hostvars, ["b1", "b2"], app="shop")["releases"] == {"shop": "r1"}


def test_rollback_of_what_changed_last() -> None:
    """Without an app it is what the last deploy changed."""
    releases = (("r1", 1, None), ("r2", 2, None))
    hostvars = {"b1": host("r2", *releases, runs=("live",))}
    assert ROLLBACK.rollback_target(hostvars, ["b1"])["releases"] == {"live": "r1"}


def test_settings_that_changed_are_no_release() -> None:
    """A run that brought only other settings to an app is not what a rollback takes back."""
    releases = (("r1", 1, None), ("r2", 2, None))
    found = host("r2", *releases, runs=("shop",))
    later = {
        **LINE,
        "app": "live",
        "run": "later",
        "when": "2026-01-03T00:00:00+00:00",
        "from": "r2",
        "to": "r2",
    }
    found["gunicorn_listed"]["history"].append(later)
    assert ROLLBACK.rollback_target({"b1": found}, ["b1"])["releases"] == {"shop": "r1"}


def test_held_back() -> None:
    """What one host has left is deployed nowhere; each keeps, or gets, what serves instead."""
    hostvars = {
        "b1": host("r1", ("r1", 5, None), ("r2", None, "left"), held={"r2": "left by ann\nmore"}),
        "b2": host("r2", ("r1", 1, None), ("r2", 2, None)),
        "b3": host(None, ("r1", 1, None)),
    }
    found = HELD.held_back(hostvars, list(hostvars), {"shop": "r2", "live": "r3"})
    assert found == {
        "hosts": {name: {"shop": "r1"} for name in hostvars},
        "apps": {"shop": {"release": "r2", "stays": "r1", "why": "left by ann"}},
        "problem": "",
    }


def test_held_back_with_nothing_else() -> None:
    """Where no other release serves it is deployed; a host that lacks the other one is a problem."""
    alone = {"b1": host(None, ("r2", None, "left"), held={"r2": "left"})}
    assert HELD.held_back(alone, ["b1"], {"shop": "r2"})["apps"] == {}
    new = {"b1": host("r1", ("r1", 1, None), held={"r2": "left"}), "b2": host(None)}
    problem = HELD.held_back(new, ["b1", "b2"], {"shop": "r2"})["problem"]
    assert problem.startswith("shop r2 is held back (left), and b2 does not have r1")
    assert "-e redeploy_bad=true" in problem


def test_held_back_without_a_host() -> None:
    """A host that could not list its releases fails by itself; the others are told what stays."""
    hostvars = {
        "b1": host("r1", ("r1", 1, None), held={"r2": "left"}),
        "b2": {"gunicorn_listed": {"failed": True, "msg": "no space"}},
    }
    found = HELD.held_back(hostvars, ["b1", "b2"], {"shop": "r2"})
    assert found["hosts"] == {"b1": {"shop": "r1"}, "b2": {}}
    assert found["problem"] == ""


def test_summary() -> None:
    """What has changed, what has not, what is held back, and where the fleet is."""
    proved = {"shop": {"before": "r1", "now": "r1", "seconds": None}}
    served = {"shop": {"before": "r1", "now": "r2", "seconds": 1.2}}
    hostvars = {
        "b1": {"gunicorn_checked": {"apps": proved}, "gunicorn_activated": {"apps": served}},
        "b2": {"gunicorn_checked": {"apps": proved}, "gunicorn_activated": {"skipped": True}},
        "lb": {},
    }
    held = {"live": {"release": "r9", "stays": "r8", "why": "left by ann"}}
    text = DEPLOY.deploy_summary(hostvars, list(hostvars), held, ["http://x"])
    assert text.splitlines() == [
        "host  app   before  now  s",
        "b1    shop  r1      r2   1.2",
        "",
        "Unchanged: 1 of 2 (each app on each backend counts).",
        "",
        "live r9 is held back: left by ann. r8 serves.",
        "It is deployed when the app changes, or with -e redeploy_bad=true.",
        "",
        "http://x",
    ]


def test_rollback_to_a_chosen_release() -> None:
    """Also to a bad one, if every host has it; where it serves nothing is said to change."""
    hostvars = {"b1": host("r2", ("r1", None, "bad"), ("r2", 2, None))}
    assert ROLLBACK.rollback_target(hostvars, ["b1"], "shop", "r1")["releases"] == {"shop": "r1"}
    there = ROLLBACK.rollback_target(hostvars, ["b1"], "shop", "r2")
    assert there["says"] == ["shop serves r2 on every backend already"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("shop", ""), "shop has no other good release that every backend has"),
        (("shop", "r9"), "release is 'r9'; allowed: one that every backend has"),
        (("nobody", ""), "app is 'nobody'; allowed: live, shop"),
    ],
)
def test_rollback_to_nowhere(arguments: tuple[str, str], words: str) -> None:
    """It says what there is instead."""
    hostvars = {"b1": host("r2", ("r1", None, "ValueError: no\nmore"), ("r2", 2, None))}
    problem = ROLLBACK.rollback_target(hostvars, ["b1"], *arguments)["problem"]
    assert words in problem
    assert arguments[0] == "nobody" or "r1       bad: ValueError: no\n" in problem


def test_history_of_all_hosts() -> None:
    """In the order of time, with the host of each line."""
    hostvars = {
        name: {"gunicorn_listed": {"history": [{**LINE, "when": f"2026-01-0{day}T00:00:00+00:00"}]}}
        for name, day in (("b1", 2), ("b2", 1))
    }
    assert [line["host"] for line in HISTORY.history(hostvars, ["b1", "b2"])] == ["b2", "b1"]
    table = HISTORY.history_table(hostvars, ["b1", "b2"], 1).splitlines()
    assert table[1].split() == ["2026-01-02", "00:00:00", "b1", "shop", "-", "r1", "serves", "1.2", "ann@x"]
    assert len(table) == 2


def test_started_tells_processes_apart() -> None:
    """A process that lives, one that is gone, and one that waits for its parent."""
    mine = LOCK.started(os.getpid())
    assert mine == LOCK.started(os.getpid()) != ""
    child = subprocess.Popen([sys.executable, "-c", ""])
    assert LOCK.started(child.pid) != mine
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert LOCK.started(child.pid) == ""
    child.wait()
    assert LOCK.started(child.pid) == ""


def test_changed_apps() -> None:
    """Those with a time were changed; of a host that was lost, any may have been."""
    same, new = {"before": "r1", "now": "r1", "seconds": None}, {"before": "r1", "now": "r2", "seconds": 3.1}
    proved = {"apps": {"live": same, "shop": same}}
    changed = DEPLOY.changed_apps
    assert changed({}) == []
    assert changed({"gunicorn_checked": proved, "gunicorn_activated": {"apps": {"shop": new}}}) == ["shop"]
    assert changed({"gunicorn_checked": proved, "gunicorn_activated": {"skipped": True}}) == []
    assert changed({"gunicorn_checked": proved, "gunicorn_activated": {"unreachable": True}}) == [
        "live",
        "shop",
    ]


def test_switched_apps() -> None:
    """On any host, and also those that were taken back."""
    new = {"before": "r1", "now": "r2", "seconds": 3.1}
    hostvars = {
        "b1": {"gunicorn_activated": {"apps": {"shop": new}}},
        "b2": {
            "gunicorn_rolled_back": {"apps": {"live": state("l1", "l1", "l2"), "idle": state("i1", "i1")}}
        },
        "lb": {},
    }
    assert DEPLOY.switched_apps(hostvars, ["b1", "b2"]) == ["live", "shop"]
