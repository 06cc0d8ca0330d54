"""The fault matrix: rows.py says what is done and what it may cost, the clients say what it did cost."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fleet import BACKENDS
from history import Line, Times, figures, too_little
from rows import ROWS, Row
from testbed import FULL, Report

PATIENCE = 60  # seconds until all is as before


@pytest.mark.parametrize("row", [row for row in ROWS if row.gate or FULL], ids=lambda row: row.number)
def test_fault(fleet: Any, table: Any, row: Row) -> None:
    """What it costs is within the limits of its row, and enough was asked to tell."""
    if row.impossible:
        table.add(Line(row.number, row.fault, {}, {}, f"not here: {row.impossible}"))
        pytest.skip(row.impossible)
    try:
        report, times, seen = endure(fleet, row)
    except BaseException as problem:
        table.add(Line(row.number, row.fault, row.expected, {}, f"FAIL: {type(problem).__name__}"))
        raise
    found = {"left": 0} | figures(report, times, row.victim) | seen
    wrong = [
        f"{name} {found[name]:g}, allowed {limit:g}"
        for name, limit in row.limits.items()
        if found[name] > limit
    ]
    wrong += too_little(report, times)
    shown = {name: found.get(name, 0) for name in ("requests", *row.expected, *row.told)}
    table.add(Line(row.number, row.fault, row.expected, shown, "FAIL" if wrong else "pass"))
    assert not wrong, f"{row.number}, {row.fault}: {'; '.join(wrong)}\n{found}\n{report.text}"


def endure(fleet: Any, row: Row) -> tuple[Report, Times, dict[str, float]]:
    """Have clients ask before, while and after it happens; returns their history, and what else was seen."""
    wait_until_whole(fleet)
    with (
        row.setting(fleet),
        fleet.probed("--ws", "", "--slow", "/requestme?seconds=2", *row.load) as report,
    ):
        time.sleep(row.before)
        fault = time.time()
        with row.happens(fleet) as seen:
            time.sleep(max(0.0, fault + row.lasts - time.time()))
            healing = time.time()
        times = Times(fault, healing, time.time())
        time.sleep(max(row.after, row.expected.get("back after s", 0) + 1))
    return report, times, seen


def wait_until_whole(fleet: Any) -> None:
    """Wait until every backend serves again, so that no row judges what another left."""
    # Who comes back often is let in ever later. Of that no row but one that asks for it should know.
    fleet.sh("lb1", "systemctl try-restart nginx-health", check=False)
    deadline, seen, text = time.monotonic() + PATIENCE, set(), ""
    while seen != set(BACKENDS):
        assert time.monotonic() < deadline, f"only {sorted(seen)} serve; the last answer: {text[:200]}"
        try:
            status, text = fleet.get()
        except OSError as problem:
            status, text = 0, str(problem)
        seen |= {name for name in BACKENDS if status == 200 and f'"{name}"' in text}
        time.sleep(0.05)
