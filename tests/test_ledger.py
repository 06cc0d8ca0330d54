"""The app that the probe's scenarios deploy: the sample, with a ledger."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FlaskClient]:
    """Talk to the app as the test bed makes it."""
    subprocess.run([ROOT / "molecule/testbed/apps", tmp_path / "apps"], check=True)
    folder = tmp_path / "apps/requestme"
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("APP_RELEASE", "r42")
    monkeypatch.syspath_prepend(folder)
    spec = importlib.util.spec_from_file_location("app_with_ledger", folder / "app.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    yield loaded.app.test_client()
    del sys.modules["ledger"]


def test_the_ledger_takes_an_id(client: FlaskClient) -> None:
    """Each is told as often as it was executed, those of other runs are not."""
    for id_ in ("a-1", "b-1", "a-2", "a-1"):
        answer = client.post("/requestme", json={"id": id_})
        assert answer.json == {"id": id_, "host": socket.gethostname(), "release": "r42"}
    answer = client.get("/requestme?run=a-")
    assert answer.json == {"host": socket.gethostname(), "ids": ["a-1", "a-2", "a-1"]}


def test_slow(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is the sample's, later."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    assert client.get("/requestme?seconds=2.5").json == client.get("/requestme").json
    assert slept == [2.5, 0.0]
    assert client.get("/readyz").json == {"status": "ready", "app": "requestme", "release": "r42"}


WRITER = """
import runpy, sys
from pathlib import Path
ledger = runpy.run_path(sys.argv[1])["Ledger"](Path(sys.argv[2]))
for number in range(300):
    ledger.append(f"{sys.argv[3]}-{number}")
"""


def test_many_processes(tmp_path: Path) -> None:
    """Processes that append at once tear and lose no line."""
    file = ROOT / "molecule/testbed/ledger.py"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, file, tmp_path, name]) for name in "abcd"]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    wanted = {f"{name}-{number}" for name in "abcd" for number in range(300)}
    ids = (tmp_path / "ledger").read_text().splitlines()
    assert (len(ids), set(ids)) == (len(wanted), wanted)
