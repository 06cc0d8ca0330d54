"""What requestme answers, refuses and believes."""

import http.client
import importlib.util
import json
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

APP = Path(__file__).parents[1] / "app.py"
ROUTES = ("/requestme", "/readyz")


def load() -> Flask:
    """Load app.py under a name of its own: every app here is called app.py."""
    spec = importlib.util.spec_from_file_location("requestme_app", APP)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    app: Flask = loaded.app
    return app


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """Talk to an app with a name and a release of the tests' own."""
    monkeypatch.setenv("APP_NAME", "paddock")
    monkeypatch.setenv("APP_RELEASE", "r42")
    return load().test_client()


def test_requestme_says_who_answered(client: FlaskClient) -> None:
    """The answer holds the message, host, app and release, and nothing else."""
    response = client.get("/requestme")
    assert response.status_code == 200
    assert response.mimetype == "application/json"
    assert response.json == {
        "message": "Thank you for requesting me.",
        "host": socket.gethostname(),
        "app": "paddock",
        "release": "r42",
    }


def test_readyz_tells_the_release(client: FlaskClient) -> None:
    """A deployment can tell the new release from the old one."""
    response = client.get("/readyz")
    assert response.status_code == 200
    assert response.json == {"status": "ready", "app": "paddock", "release": "r42"}


@pytest.mark.parametrize("path", ROUTES)
def test_head_is_get_without_body(client: FlaskClient, path: str) -> None:
    """HEAD has the headers of GET."""
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND"])
def test_other_methods_are_refused(client: FlaskClient, path: str, method: str) -> None:
    """Every other method is 405, which names the ones that work."""
    response = client.open(path, method=method)
    assert response.status_code == 405
    assert set(response.allow) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("path", ["/", "/requestme/", "/static/app.py"])
def test_other_paths_are_unknown(client: FlaskClient, path: str) -> None:
    """Nothing else is served, static files included."""
    assert client.get(path).status_code == 404


def test_defaults_without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by hand, the app needs no environment."""
    monkeypatch.delenv("APP_NAME", raising=False)
    monkeypatch.delenv("APP_RELEASE", raising=False)
    answer = load().test_client().get("/readyz").json
    assert answer == {"status": "ready", "app": "requestme", "release": "development"}


def test_development_server_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python app.py` means loopback, port 9090 and no debugger, whatever FLASK_DEBUG says."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(Flask, "run", lambda _app, **settings: calls.append(settings))
    monkeypatch.setenv("FLASK_DEBUG", "1")
    runpy.run_path(str(APP), run_name="__main__")
    assert calls == [{"host": "127.0.0.1", "port": 9090, "debug": False}]


def test_development_server_serves() -> None:
    """`python app.py` really answers."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 9090))
        except OSError:
            pytest.skip("port 9090 is taken")
    with subprocess.Popen(
        [sys.executable, APP],
        env={"APP_RELEASE": "r44"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            answer = json.loads(get_when_up(process, 9090, "/requestme"))
        finally:
            process.terminate()
    assert (answer["app"], answer["release"]) == ("requestme", "r44")


def get_when_up(process: subprocess.Popen[bytes], port: int, path: str) -> bytes:
    """Fetch a path from a process that is still starting."""
    deadline = time.monotonic() + 20
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            assert response.status == 200
            return response.read()
        except ConnectionRefusedError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not listen"
            time.sleep(0.05)
        finally:
            connection.close()
