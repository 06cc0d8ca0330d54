"""What welcome answers, prints, echoes and refuses."""

import contextlib
import http.client
import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.ioloop import IOLoop
from tornado.testing import AsyncHTTPTestCase, gen_test
from tornado.web import Application
from tornado.websocket import WebSocketClientConnection, websocket_connect

APP = Path(__file__).parents[1] / "app.py"


def load_app() -> ModuleType:
    """Load app.py under a name of its own: every app here is called app.py."""
    spec = importlib.util.spec_from_file_location("welcome_app", APP)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class TestWelcome(AsyncHTTPTestCase):
    """The app on a real loopback port."""

    def get_app(self) -> Application:
        """Make an app with a name and a release of the tests' own."""
        with mock.patch.dict(os.environ, APP_NAME="paddock", APP_RELEASE="r42"):
            app: Application = load_app().app
        return app

    async def connect(self, **headers: str) -> WebSocketClientConnection:
        """Open the WebSocket."""
        url = f"ws://127.0.0.1:{self.get_http_port()}/ws"
        return await websocket_connect(HTTPRequest(url, headers=headers))

    def test_body_is_exact(self) -> None:
        """The greeting comes without so much as a newline."""
        with contextlib.redirect_stdout(io.StringIO()):
            response = self.fetch("/")
        assert (response.code, response.body) == (200, b"Welcome to Tornado..!!")

    def test_one_line_a_hit(self) -> None:
        """Each greeting prints one line; health checks print none."""
        with contextlib.redirect_stdout(io.StringIO()) as stdout:
            self.fetch("/")
            assert stdout.getvalue() == "Someone called me\n"
            self.fetch("/")
            self.fetch("/readyz")
        assert stdout.getvalue() == "Someone called me\n" * 2

    def test_readyz_tells_the_release(self) -> None:
        """A deployment can tell the new release from the old one."""
        response = self.fetch("/readyz")
        assert response.code == 200
        assert response.headers["Content-Type"].startswith("application/json")
        assert json.loads(response.body) == {
            "status": "ready",
            "app": "paddock",
            "release": "r42",
        }

    def test_other_paths_are_unknown(self) -> None:
        """Nothing else is served."""
        assert self.fetch("/welcome").code == 404

    def test_plain_get_of_the_websocket(self) -> None:
        """Without an upgrade there is no WebSocket."""
        assert self.fetch("/ws").code == 400

    @gen_test
    async def test_echo(self) -> None:
        """Text comes back as text, binary as binary, in order and unchanged."""
        client = await self.connect()
        messages: list[str | bytes] = ["hello", b"\x00\xff\xfe", "", b"", "žluťoučký 🐎\n"]
        messages.append("x" * 100_000)
        for message in messages:
            await client.write_message(message, binary=isinstance(message, bytes))
        assert [await client.read_message() for _ in messages] == messages
        client.close()

    @gen_test
    async def test_same_origin_behind_a_proxy(self) -> None:
        """A page of the public name may connect: the proxy passes Host on."""
        client = await self.connect(Host="www.example.org", Origin="https://www.example.org")
        await client.write_message("hello")
        assert await client.read_message() == "hello"
        client.close()

    @gen_test
    async def test_foreign_origin_is_refused(self) -> None:
        """A page of another site may not."""
        with pytest.raises(HTTPClientError) as refused:
            await self.connect(Host="www.example.org", Origin="https://evil.example")
        assert refused.value.code == 403


def test_defaults_without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by hand, the app needs no environment."""
    monkeypatch.delenv("APP_NAME", raising=False)
    monkeypatch.delenv("APP_RELEASE", raising=False)
    app = load_app()
    assert (app.NAME, app.RELEASE) == ("welcome", "development")


def test_import_needs_no_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gunicorn may import the app before it forks, and import it again."""
    touched = mock.Mock(side_effect=AssertionError("the import touched the event loop"))
    monkeypatch.setattr(IOLoop, "current", touched)
    monkeypatch.setattr("asyncio.new_event_loop", touched)
    monkeypatch.setattr("asyncio.get_event_loop", touched)
    load_app()
    load_app()
    touched.assert_not_called()


def test_default_port() -> None:
    """Without --port it is 8888."""
    usage = subprocess.run(
        [sys.executable, APP, "--help"], capture_output=True, text=True, check=True, timeout=20
    )
    assert "port to listen on (default 8888)" in usage.stdout + usage.stderr


def test_development_server_serves(tmp_path: Path) -> None:
    """`python app.py --port=N` listens there, and its lines reach a pipe or file at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    printed = tmp_path / "stdout"
    # The environment has no PYTHONUNBUFFERED, which would hide a missing flush.
    with (
        printed.open("wb") as stdout,
        subprocess.Popen(
            [sys.executable, APP, f"--port={port}"],
            env={"APP_RELEASE": "r44"},
            stdout=stdout,
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            ready = json.loads(get_when_up(process, port, "/readyz"))
            greeting = get_when_up(process, port, "/")
            lines = printed.read_text()
        finally:
            process.terminate()
    assert ready == {"status": "ready", "app": "welcome", "release": "r44"}
    assert greeting == b"Welcome to Tornado..!!"
    assert lines == "Someone called me\n"


def get_when_up(process: subprocess.Popen[bytes], port: int, path: str) -> bytes:
    """Fetch a path from a process that may still be starting."""
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
