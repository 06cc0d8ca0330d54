"""Programs and modules of the role gunicorn, run as they are."""

from __future__ import annotations

import base64
import contextlib
import errno
import html
import json
import logging
import os
import platform
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "roles/gunicorn/files"))

import paddock_client
import paddock_hooks
from ansible_collections.paddock.fleet.plugins.module_utils import (
    host_lock,
    masking,
    networks,
    readiness,
    release_files,
)

LINUX = tuple(map(int, platform.release().split(".")[:2]))
LAUNCH = Path(__file__).parents[1] / "roles/gunicorn/files/launch.py"

# --- launch.py


def launched(variables: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program as a slot's unit does."""
    argv = ["/usr/bin/python3", "-I", "-S", str(LAUNCH), str(variables), *command]
    return subprocess.run(argv, env=environment, capture_output=True, check=False)


def test_launch(tmp_path: Path) -> None:
    """The program has the variables byte for byte, and nothing that Python has added."""
    given = {
        "LINES": "one\ntwo\r\n",
        "QUOTES": "'\"`$\\",
        "EMPTY": "",
        "UNICODE": "東京 🐎",
        "LARGE": "x" * 99999,
    }
    (tmp_path / "environment.json").write_text(json.dumps({**given, "KEPT": "app"}), encoding="utf-8")
    done = launched(tmp_path / "environment.json", "/usr/bin/env", "-0", KEPT="systemd", OTHER="a=b")
    there = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry)
    assert there == {**given, "KEPT": "app", "OTHER": "a=b"}


def test_launched_programs_signal_only_each_other(tmp_path: Path) -> None:
    """Not their siblings of the same user, where the kernel can keep them apart."""
    code = "import os, sys, time; print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        code = (
            "import os, subprocess, sys\n"
            "child = subprocess.Popen(['sleep', '60'])\n"
            "child.kill()\n"
            "print(child.wait())\n"
            f"os.kill({other.pid}, 9)"
        )
        done = launched(tmp_path / "none.json", sys.executable, "-c", code, PATH=os.environ["PATH"])
        assert done.stdout == b"-9\n"
        assert (b"PermissionError" in done.stderr) == (LINUX >= (6, 12))
        # A limit of no time at all kills as well. One's own limits can be asked for.
        code = (
            "import resource\n"
            "print(len(resource.getrlimit(resource.RLIMIT_CPU)), flush=True)\n"
            f"resource.prlimit({other.pid}, resource.RLIMIT_CPU, (1, 1))"
        )
        done = launched(tmp_path / "none.json", sys.executable, "-c", code, PATH=os.environ["PATH"])
        assert done.stdout == b"2\n"
        assert b"PermissionError" in done.stderr
        other.kill()


def test_launched_programs_open_no_port(tmp_path: Path) -> None:
    """That of another app, while it is stopped; a unix socket and a connection are theirs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            "import socket\n"
            f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))\n"
            f"socket.socket(socket.AF_UNIX).bind({str(tmp_path / 'own.sock')!r})\n"
            "print('connected', flush=True)\n"
            "socket.create_server(('127.0.0.1', 0))"
        )
        done = launched(tmp_path / "none.json", sys.executable, "-c", code, PATH=os.environ["PATH"])
    assert done.stdout == b"connected\n"
    assert (b"PermissionError" in done.stderr) == (LINUX >= (6, 7))


def test_launch_without_variables(tmp_path: Path) -> None:
    """An app without an environment has no file."""
    assert launched(tmp_path / "none.json", "/usr/bin/env", A="b").stdout == b"A=b\n"


@pytest.mark.parametrize(
    ("value", "program", "said"),
    [
        ("x", "/nonexistent", b"/nonexistent cannot be started: No such file"),
        (
            "x" * 200_000,
            "/usr/bin/env",
            b"the app's environment is too large, Linux takes 128 KiB a variable",
        ),
    ],
)
def test_launch_fails(tmp_path: Path, value: str, program: str, said: bytes) -> None:
    """It says why, without the values."""
    (tmp_path / "environment.json").write_text(json.dumps({"A": value}))
    done = launched(tmp_path / "environment.json", program)
    assert done.returncode == 1
    assert said in done.stderr
    assert b"xxx" not in done.stderr


# --- paddock_client.py


def seen(peer: str, forwarded: str | None) -> str:
    """What an app behind 192.0.2.1, 10.9.0.0/24 and 2001:db8::1 has as REMOTE_ADDR."""
    trusted = paddock_client.trusted_networks(["192.0.2.1", "10.9.0.0/24", "2001:db8::1", "no-such.invalid"])
    environ: dict[str, Any] = {"REMOTE_ADDR": peer}
    if forwarded is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded
    return paddock_client.Client(lambda environ, _: environ["REMOTE_ADDR"], trusted)(environ, print)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("::ffff:192.0.2.1", "203.0.113.9", "203.0.113.9"),
        ("192.0.2.1", "2001:db8::9", "2001:db8::9"),
        ("10.9.0.77", "203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("", "203.0.113.9", "203.0.113.9"),
        # A list: the last one is what the peer has seen itself.
        ("192.0.2.1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("::ffff:192.0.2.1", None, "192.0.2.1"),
        ("::ffff:192.0.2.1", " ", "192.0.2.1"),
        # Forged.
        ("::ffff:192.0.2.2", "203.0.113.9", "192.0.2.2"),
        ("2001:db8::2", "203.0.113.9", "2001:db8::2"),
        ("10.9.1.1", "203.0.113.9", "10.9.1.1"),
        ("127.0.0.1", "203.0.113.9", "127.0.0.1"),
        ("::1", "203.0.113.9", "::1"),
    ],
)
def test_client(peer: str, forwarded: str | None, client: str) -> None:
    """The balancers are believed, and no other peer."""
    assert seen(peer, forwarded) == client


def test_allow_list() -> None:
    """IPv4 stands there as a peer of a socket for both versions comes, too."""
    trusted = paddock_client.trusted_networks(["192.0.2.1", "10.9.0.0/24"])
    assert set(paddock_client.allow_list(trusted).split(",")) == {
        *("192.0.2.1/32", "::ffff:192.0.2.1/128", "10.9.0.0/24", "::ffff:10.9.0.0/120"),
    }


# --- paddock_hooks.py


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[BaseException], str]]:
    """Log an exception as an app's framework does; returns what the log says."""
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/paddock/shop")
    make, hook = logging.getLogRecordFactory(), sys.excepthook
    paddock_hooks.explain_read_only_files(Path("/srv/shop/releases/1-py3.13"))

    def logged(error: BaseException) -> str:
        factory = logging.getLogRecordFactory()
        trace = (type(error), error, error.__traceback__)
        return logging.Formatter().format(factory("app", logging.ERROR, "app.py", 1, "failed", (), trace))

    yield logged
    logging.setLogRecordFactory(make)
    sys.excepthook = hook


class OperationalError(Exception):
    """By this name SQLite's errors are known, whatever wraps them."""


READ_ONLY = [
    OSError(errno.EROFS, "Read-only file system", "/srv/shop/releases/1-py3.13/app/uploads"),
    PermissionError(errno.EACCES, "Permission denied", "/srv/shop/releases/1-py3.13/app/dev.sqlite"),
    OperationalError("attempt to write a readonly database"),
    OperationalError("unable to open database file"),
]
OTHERS = [
    PermissionError(errno.EACCES, "Permission denied", "/etc/shadow"),
    OSError(errno.ENOENT, "No such file", "/srv/shop/releases/1-py3.13/app/uploads"),
    OperationalError("no such table: users"),
    ValueError("attempt to write a readonly database"),
]


@pytest.mark.parametrize("error", READ_ONLY, ids=repr)
def test_a_read_only_file_is_explained(records: Callable[[BaseException], str], error: Exception) -> None:
    """Once, also where it is the cause of another error."""
    outer = RuntimeError("the page cannot be shown")
    outer.__cause__ = error
    for one in (error, outer, outer):
        said = records(one)
        assert said.count("Write below the folder that STATE_DIRECTORY (/var/lib/paddock/shop)") == 1


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_errors_are_not(records: Callable[[BaseException], str], error: Exception) -> None:
    """They say what they say."""
    assert "STATE_DIRECTORY" not in records(error)


# --- readiness.py


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Callable[..., tuple[Path, dict[str, str]]]]:
    """A slot's socket, which answers as told and keeps the headers that it got."""
    servers = []

    def serve(status: int, body: str = "", **headers: str) -> tuple[Path, dict[str, str]]:
        got: dict[str, str] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                got.update(self.headers.items())
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *_: object) -> None:
                pass

        path = tmp_path / f"{len(servers)}.sock"
        server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return path, got

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_readiness(slot: Any) -> None:
    """The request looks like one of a client by https, for a host that the app knows."""
    path, got = slot(200, '{"release": "1f"}')
    readiness.ask(path, "/readyz", "shop.example.org", "1f", os.getuid())
    assert (got["Host"], got["X-Forwarded-Proto"]) == ("shop.example.org", "https")


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_what_may_change_is_waited_for(slot: Any, status: int) -> None:
    """An app that is not ready yet."""
    with pytest.raises(readiness.NotReady, match=f"/readyz: status {status}, want 200: soon") as caught:
        readiness.ask(slot(status, "soon")[0], "/readyz", "localhost", "1f", os.getuid())
    assert not isinstance(caught.value, readiness.NeverReady)


def test_silence_is_waited_for(tmp_path: Path) -> None:
    """No process listens, or there is no socket."""
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(tmp_path / "closed.sock"))
    for name in ("closed.sock", "none.sock"):
        with pytest.raises(readiness.NotReady, match="GET ") as caught:
            readiness.ask(tmp_path / name, "/readyz", "localhost", "1f", os.getuid())
        assert not isinstance(caught.value, readiness.NeverReady)


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (200, {}, "does not name the release 1f: the app has to return the environment variable APP_RELEASE"),
        (204, {}, "status 204, want 200: answer /readyz with 200"),
        (
            301,
            {"Location": "https://a.org/"},
            "it redirects to https://a.org/: answer /readyz without a redirect",
        ),
        (404, {}, "the app has no /readyz; add it, or name the path that it has as health_path"),
        (400, {}, "does the app accept the host shop.org?"),
        (401, {}, "without a login"),
        (403, {}, "without a login and for the host shop.org"),
        (405, {}, "answer GET at /readyz"),
    ],
)
def test_what_cannot_change_fails_at_once(slot: Any, status: int, headers: dict[str, str], said: str) -> None:
    """With URL, status, what was sent, and what to do."""
    path, _ = slot(status, "" if status == 204 else "words of the app", **headers)
    with pytest.raises(readiness.NeverReady) as caught:
        readiness.ask(path, "/readyz", "shop.org", "1f", os.getuid())
    text = str(caught.value)
    assert said in text
    assert f"GET http+unix:/{path}/readyz" in text
    assert status == 200 or "(Host: shop.org, X-Forwarded-Proto: https)" in text


def test_an_answer_that_drips_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then, in the headers, the body or lines that say to go on, must not hold a run."""
    monkeypatch.setattr(readiness, "PATIENCE", 1.0)
    bodies = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 ",
    ]
    for number, begin in enumerate(bodies):
        path, over = tmp_path / f"{number}.sock", threading.Event()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()

            def drip(listener: socket.socket = listener, begin: bytes = begin, over: Any = over) -> None:
                peer, _ = listener.accept()
                with peer, contextlib.suppress(OSError):
                    peer.recv(65536)
                    peer.sendall(begin)
                    while not over.wait(0.2):
                        peer.sendall(b"x")

            thread = threading.Thread(target=drip)
            thread.start()
            began = time.monotonic()
            with pytest.raises(readiness.NotReady):
                readiness.ask(path, "/readyz", "localhost", "1f", os.getuid())
            assert time.monotonic() - began < 3
            over.set()
            thread.join()


def test_only_the_apps_own_socket_is_asked(slot: Any, tmp_path: Path) -> None:
    """An app may put a link to another socket there; it gets no request."""
    path, got = slot(200, '{"release": "1f"}')
    (tmp_path / "link.sock").symlink_to(path)
    with pytest.raises(readiness.NotReady, match="it is not a socket"):
        readiness.ask(tmp_path / "link.sock", "/readyz", "localhost", "1f", os.getuid())
    with pytest.raises(readiness.NotReady, match=f"user {os.getuid()} listens there, not the app's user"):
        readiness.ask(path, "/readyz", "localhost", "1f", os.getuid() + 1)
    assert got == {}


def test_all_workers_count(tmp_path: Path) -> None:
    """A slot is ready with the last of them; one of an earlier checkout counts none."""
    readiness.count(tmp_path)
    (tmp_path / "workers").write_text("2")
    (tmp_path / "booted").write_text("17\n")
    with pytest.raises(readiness.NotReady, match="1 of 2 workers"):
        readiness.count(tmp_path)
    (tmp_path / "booted").write_text("17\n18\n")
    readiness.count(tmp_path)


def test_an_app_shows_no_files_of_others(tmp_path: Path) -> None:
    """It could put a link to what only root reads where the run reads for it, or what never ends."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    assert [readiness.read_from_app(tmp_path / name) for name in ("link", "pipe", "folder", "none")] == [
        ""
    ] * 4
    assert readiness.read_from_app(tmp_path / "secret") == "secret"


# --- masking.py

SECRET = "hun\"te'r2\\ ü@/+\nsecond line\r\n    \tthird\n"
FORMS = {
    "as it is": SECRET,
    "as repr": repr(SECRET),
    "as repr of bytes": repr(SECRET.encode()),
    "in a dict": repr({"password": SECRET}),
    "as JSON": json.dumps(SECRET),
    "as JSON in UTF-8": json.dumps(SECRET, ensure_ascii=False),
    "as JSON in JSON": json.dumps(json.dumps({"password": SECRET})),
    "as repr of JSON": repr(json.dumps({"password": SECRET})),
    "in a URL": urllib.parse.quote(SECRET),
    "in a query": urllib.parse.urlencode({"password": SECRET}),
    "in a form": urllib.parse.quote(SECRET, safe="").lower(),
    "as HTML": html.escape(SECRET),
    "as base64": base64.b64encode(SECRET.encode()).decode(),
    "as a login": base64.b64encode(f"me:{SECRET}".encode()).decode(),
    "as another login": base64.urlsafe_b64encode(f"you:{SECRET}!".encode()).decode(),
    "as hex": SECRET.encode().hex(),
    "one line of it": "second line",
    "another line": "trace: third in",
}


@pytest.mark.parametrize("form", FORMS)
def test_secrets_are_masked(form: str) -> None:
    """In whatever way a program writes them."""
    said = masking.clean(f"it said <{FORMS[form]}> and ended", frozenset({SECRET, "on"}))
    assert masking.MASK in said
    assert said.startswith("it said <")
    assert said.endswith("> and ended")
    for word in ("hun", "te", "r2", "second", "third", "aHVu", "dGUncjI", "68756e", "c2Vjb25k", "dGhpcmQ"):
        assert word.lower() not in said.lower().replace("it said", ""), said


def test_what_an_app_says_moves_no_cursor() -> None:
    """Nor does it turn a line around; tabs and lines stay."""
    said = "\x1b[2J\x1b]0;title\x07one\r\n\ttwo\x9b31m \u202eeerht\x00 ü 東京"
    assert masking.clean(said, frozenset()) == "[2J]0;titleone\n\ttwo31m eerht ü 東京"


# --- host_lock.py


def test_a_lock_is_for_root_alone(tmp_path: Path) -> None:
    """Whoever reads a file may lock it; one of an earlier checkout is shut."""
    path = tmp_path / "lock"
    path.touch(0o644)
    os.close(host_lock.take(path, 0))
    assert path.stat().st_mode & 0o777 == 0o600


def test_who_holds_a_lock_is_named(tmp_path: Path) -> None:
    """The wait has an end, and the message says which process to look at."""
    path = tmp_path / "lock"
    path.touch()
    code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print('has it', flush=True); input()"
    argv = [sys.executable, "-c", code, str(path), "\x1b[31mred"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "has it\n"
        with pytest.raises(
            host_lock.Held, match=rf"locked for more than 1 s by process {holder.pid} \("
        ) as caught:
            host_lock.take(path, 1)
        assert str(path) in str(caught.value)
        assert "\x1b" not in str(caught.value)
        holder.kill()
    os.close(host_lock.take(path, 1))


# --- networks.py, release_files.py


def test_networks() -> None:
    """As sets of addresses: overlapping and adjacent ones, in any order."""
    given = [
        "127.0.0.1",
        "::1",
        "192.0.2.7",
        "192.0.2.0/25",
        "192.0.2.128/25",
        "2001:db8::1",
        "2001:db8::/64",
    ]
    shortest = {"127.0.0.1/32", "::1/128", "192.0.2.0/24", "2001:db8::/64"}
    assert networks.collapsed(given) == networks.collapsed(reversed(given)) == shortest
    assert networks.collapsed(shortest) == shortest
    assert networks.collapsed([]) == frozenset()


def test_times_of_a_release(tmp_path: Path) -> None:
    """Files have the time of the run; Python's own keep theirs, for their byte code knows it."""
    names = ("app/static/page.txt", "app/app.py", "app/__pycache__/app.cpython-313.pyc")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (0, 0))
    (tmp_path / "app/dangling").symlink_to("nowhere")
    when = release_files.began("20261125T231739Z-1f")
    release_files.stamp(tmp_path, when)
    assert [(tmp_path / name).stat().st_mtime for name in names] == [1795648659, 0, 0]
    assert release_files.began("") > when - 10**9
