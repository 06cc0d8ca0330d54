"""Each row through Nginx and straight to Gunicorn: what the client gets, and what the app was asked."""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import Any

import pytest
from cases import CASES, NODES, Case, Outcome, fill, seen
from wire import PORTS

# What an app is told through Nginx whatever the client says; None: nothing.
TOLD = {
    "X-FORWARDED-FOR": "127.0.0.1",
    "X-REAL-IP": "127.0.0.1",
    "X-FORWARDED-PROTO": "http",
    "X-FORWARDED-HOST": None,
    "X-FORWARDED-PORT": None,
    "X-FORWARDED-SSL": None,
    "X-FORWARDED-PROTOCOL": None,
    "FORWARDED": None,
    "PROXY": None,
    "UPGRADE": None,
    "TRANSFER-ENCODING": None,
    "X-INJECTED": None,
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_row(case: Case, outcomes: dict[str, Outcome]) -> None:
    """The verdict is the row's, the app ran as often as it answered, and it was asked what was sent."""
    outcome = outcomes[str(case)]
    exchange, notes, wanted = outcome.exchange, outcome.notes, case.verdict
    assert exchange.verdict == wanted, f"{outcome.raw[:300]!r}\n-> {exchange.raw[:300]!r}"
    assert not [name for answer in exchange.answers for name, _ in answer.headers if name == "x-injected"]
    answered = wanted.split().count("200")
    # The app runs, too, before its answer turns out to be none.
    most = max(answered, case.row.name.startswith("H29"))
    assert answered <= len(notes) <= most, notes
    for note in notes:
        assert_meant(case, outcome, note)


def assert_meant(case: Case, outcome: Outcome, note: dict[str, Any]) -> None:
    """What the app parsed is what the row means."""
    row = case.row
    method, target = outcome.raw.split()[:2]
    body = b"hello" if method == b"POST" else b""
    if row.body is not None:
        body = fill(row.body, outcome.tag, case.app)
    assert note["method"].encode() == method
    assert (note["length"], note["body"]) == (len(body), hashlib.sha256(body).hexdigest())
    if case.way == "direct":
        assert note["target"] == target.decode("latin-1")
        return
    assert note["target"] == (
        row.target.replace("tag000000", outcome.tag.decode()) or target.decode("latin-1")
    )
    told = {**TOLD, "HOST": "echo.test", **row.headers}
    for name, value in told.items():
        assert note["headers"].get(name) == (value and value.replace("echo", case.app)), name
    assert re.fullmatch("[0-9a-f]{32}", note["headers"]["X-REQUEST-ID"])
    assert note["scheme"] == "http"


def test_nothing_else_arrived(outcomes: dict[str, Outcome]) -> None:
    """The apps were asked nothing that is not of a row."""
    for node, app in itertools.product(NODES, PORTS):
        mine = [outcomes[str(case)].notes for case in CASES if (case.node, case.app) == (node, app)]
        assert len(seen(node, app)) == sum(map(len, mine))
