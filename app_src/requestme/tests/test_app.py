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
from types import ModuleType
from typing import Any

import pytest
from flask import Flask, request, session
from flask.testing import FlaskClient

APP = Path(__file__).parents[1] / "app.py"
ROUTES = ("/requestme", "/healthz", "/readyz")


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """Load app.py under a name of its own: every app here is called app.py."""
    spec = importlib.util.spec_from_file_location("requestme_app", APP)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def app(module: ModuleType, tmp_path: Path) -> Flask:
    """Make an app with a name, a release and a folder of the tests' own."""
    names = {"APP_NAME": "paddock", "APP_RELEASE": "r42"}
    return module.create_app({"TESTING": True, "STATE": str(tmp_path), **names})


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Talk to that app."""
    return app.test_client()


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


def test_healthz(client: FlaskClient) -> None:
    """A live process says so."""
    response = client.get("/healthz")
    assert (response.status_code, response.json) == (200, {"status": "ok"})


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
@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"]
)
def test_other_methods_are_refused(client: FlaskClient, path: str, method: str) -> None:
    """Every other method is 405, which names the ones that work."""
    response = client.open(path, method=method)
    assert response.status_code == 405
    assert set(response.allow) == {"GET", "HEAD"}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_ledger_is_only_read_and_added_to(client: FlaskClient, method: str) -> None:
    """Nobody can change what was executed."""
    response = client.open("/requestme/ledger", method=method)
    assert response.status_code == 405
    assert set(response.allow) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize(
    "how", [{"json": {"id": "run-1"}}, {"data": {"id": "run-1"}}, {"query_string": {"id": "run-1"}}]
)
def test_ledger_takes_an_id(client: FlaskClient, how: dict[str, Any]) -> None:
    """An id comes as JSON, form or query, and the answer says where it was executed."""
    response = client.post("/requestme/ledger", **how)
    assert response.status_code == 200
    assert response.json == {
        "id": "run-1",
        "host": socket.gethostname(),
        "app": "paddock",
        "release": "r42",
    }
    answer = client.get("/requestme/ledger?run=run-")
    assert answer.json == {"host": socket.gethostname(), "ids": ["run-1"]}


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "a\nb", "a\n", "x" * 65, "ä"])
def test_ledger_refuses_other_ids(client: FlaskClient, tmp_path: Path, bad: str) -> None:
    """What is no id is 400 on both ways, and nothing is written."""
    assert client.post("/requestme/ledger", json={"id": bad}).status_code == 400
    assert client.get("/requestme/ledger", query_string={"run": bad}).status_code == 400
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("body", [{}, {"id": 1}, {"id": None}, ["id"], "id", None])
def test_ledger_refuses_other_json(client: FlaskClient, body: object) -> None:
    """JSON of another shape is 400 and no crash."""
    assert client.post("/requestme/ledger", json=body).status_code == 400
    assert client.get("/requestme/ledger").status_code == 400


def test_ledger_tells_one_run_only(client: FlaskClient) -> None:
    """Each id is told as often as it was executed, other runs' are not."""
    for id_ in ("a-1", "b-1", "a-2", "a-1"):
        client.post("/requestme/ledger", data={"id": id_})
    answer = client.get("/requestme/ledger?run=a-")
    assert answer.json is not None
    assert answer.json["ids"] == ["a-1", "a-2", "a-1"]


def test_ledger_is_where_systemd_says(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All releases on a host share the folder."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    for release in ("r1", "r2"):
        app = module.create_app({"APP_RELEASE": release})
        app.test_client().post("/requestme/ledger", data={"id": release})
    assert (tmp_path / "ledger").read_text() == "r1\nr2\n"


WRITER = """
import runpy, sys
from pathlib import Path
ledger = runpy.run_path(sys.argv[1])["Ledger"](Path(sys.argv[2]), int(sys.argv[3]))
for number in range(300):
    ledger.append(f"{sys.argv[4]}-{number}")
"""


@pytest.mark.parametrize("limit", [4000, 1_000_000])
def test_ledger_of_many_processes(module: ModuleType, tmp_path: Path, limit: int) -> None:
    """Processes that append at once tear no line; below the limit none is lost, above it old ones."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, APP, tmp_path, str(limit), name]) for name in "abcd"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    ids = module.Ledger(tmp_path, limit).ids("")
    wanted = {f"{name}-{number}" for name in "abcd" for number in range(300)}
    assert len(ids) == len(set(ids))
    assert set(ids) <= wanted
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2 * limit + 1000
    if limit > 4000:
        assert set(ids) == wanted
    else:
        assert len(ids) > 300


def test_slow_sleeps_and_answers(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is that of /requestme, later."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for seconds in ("0", "2.5", "20"):
        response = client.get(f"/requestme/slow?seconds={seconds}")
        assert response.json == client.get("/requestme").json
    assert slept == [0, 2.5, 20]


@pytest.mark.parametrize("seconds", ["", "-1", "20.1", "nan", "inf", "soon", None])
def test_slow_refuses_other_times(client: FlaskClient, seconds: str | None) -> None:
    """No request can sleep for as long as it likes."""
    query = {} if seconds is None else {"seconds": seconds}
    assert client.get("/requestme/slow", query_string=query).status_code == 400


@pytest.mark.parametrize("path", ["/", "/requestme/", "/static/app.py"])
def test_other_paths_are_unknown(client: FlaskClient, path: str) -> None:
    """Nothing else is served, static files included."""
    assert client.get(path).status_code == 404


def test_environment_reaches_the_factory(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name and release come from the environment at the time of the call."""
    monkeypatch.setenv("APP_NAME", "other")
    monkeypatch.setenv("APP_RELEASE", "r43")
    answer = module.create_app().test_client().get("/readyz").json
    assert answer == {"status": "ready", "app": "other", "release": "r43"}


def test_defaults_without_environment(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by hand, the app needs no environment."""
    monkeypatch.delenv("APP_NAME", raising=False)
    monkeypatch.delenv("APP_RELEASE", raising=False)
    answer = module.create_app().test_client().get("/readyz").json
    assert answer == {"status": "ready", "app": "requestme", "release": "development"}


def test_one_proxy_is_believed(app: Flask) -> None:
    """The last hop's client, scheme and prefix count; a forwarded host never does."""

    @app.get("/seen")
    def seen() -> dict[str, str | None]:
        return {
            "client": request.remote_addr,
            "scheme": request.scheme,
            "host": request.host,
            "prefix": request.script_root,
        }

    response = app.test_client().get(
        "/seen",
        headers={
            "Host": "www.example.org",
            "X-Forwarded-For": "203.0.113.66, 198.51.100.7",
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Prefix": "/shop",
            "X-Forwarded-Proto": "https",
        },
    )
    assert response.json == {
        "client": "198.51.100.7",
        "scheme": "https",
        "host": "www.example.org",
        "prefix": "/shop",
    }


def test_session_cookie_flags(app: Flask) -> None:
    """A session cookie would go over HTTPS only, unseen by scripts and other sites."""
    app.secret_key = "of this test only"

    @app.get("/login")
    def login() -> str:
        session["user"] = "me"
        return ""

    cookie = app.test_client().get("/login").headers["Set-Cookie"]
    assert {"Secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))


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
