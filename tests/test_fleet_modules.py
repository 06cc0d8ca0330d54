"""The modules that hold the lock and confirm a backend, run as Ansible runs them, against real sockets."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.paddock.fleet.plugins.module_utils.host_lock import Held, take

MODULES = Path(__file__).parents[1] / "plugins" / "modules"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nr1"
UNHEALTHY = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nno\x1b["


def drip(connection: socket.socket) -> None:
    """Answer a byte at a time, for ever."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.2)


class App:
    """A server that answers each connection with the same."""

    def __init__(self, answer: bytes | Callable[[socket.socket], None]) -> None:
        self.answer, self.listener = answer, socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        """Answer whoever comes."""
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.say, args=(connection,), daemon=True).start()

    def say(self, connection: socket.socket) -> None:
        """Answer one."""
        with connection:
            connection.recv(65536)
            try:
                self.answer(connection) if callable(self.answer) else connection.sendall(self.answer)
            except OSError:
                return  # it hung up


def confirm(apps: dict[str, App], changed: list[str], **more: Any) -> dict[str, Any]:
    """Run the module; no Nginx is there, so it asks the backend itself."""
    by_app = {
        "ports": {name: app.port for name, app in apps.items()},
        "health_paths": dict.fromkeys(apps, "/readyz"),
        "server_names": {name: [] for name in apps},
        "releases": dict.fromkeys(apps, "r1"),
    }
    given = {"backend": "b1", "address": "127.0.0.1", "changed": changed, "seconds": 0, **by_app, **more}
    done = subprocess.run(
        [sys.executable, MODULES / "fleet_confirm.py"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": given}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_an_app_that_has_not_changed_stops_no_deploy() -> None:
    """It is a warning, without the control characters of its answer."""
    apps = {"good": App(OK), "bad": App(UNHEALTHY)}
    result = confirm(apps, ["good"])
    assert not result.get("failed")
    assert result["confirmed"].keys() == {"good"}
    assert "bad on b1 is not confirmed" in str(result["warnings"])
    assert "status 500" in str(result["warnings"])
    assert "\\x1b" not in str(result["warnings"])
    assert confirm(apps, ["good", "bad"])["failed"]


def test_a_long_answer_may_name_its_release_at_its_end() -> None:
    """A health answer has other checks first; a message has only its beginning."""
    body = b"x" * 5000 + b" r1"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert confirm({"long": App(head + body)}, ["long"])["confirmed"].keys() == {"long"}
    other = confirm({"long": App(head + body)}, ["long"], releases={"long": "r2"})
    assert "does not name the release r2" in other["msg"]
    assert len(other["msg"]) < 500


def test_a_dripped_answer_ends() -> None:
    """Each byte comes in time, and all of it would take for ever."""
    result = confirm({"drip": App(drip)}, ["drip"])
    assert result["failed"]
    assert "no whole answer within 5 s" in result["msg"]


def test_any_answer_is_a_passage() -> None:
    """For rules of the firewall it does not matter whether an app is healthy."""
    apps = {"bad": App(UNHEALTHY)}
    assert confirm(apps, ["bad"], passage=True)["confirmed"].keys() == {"bad"}
    apps["bad"].listener.close()
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    apps["bad"].port = closed.getsockname()[1]
    assert "refused" in confirm(apps, ["bad"], passage=True)["msg"]


def test_a_lock_is_closed_to_others(tmp_path: Path) -> None:
    """Also one that an earlier checkout has left open to all: who can read it can hold it."""
    path = tmp_path / "deploy.guard"
    path.touch(mode=0o644)
    lock = take(path, 0.3)
    assert path.stat().st_mode & 0o777 == 0o600
    os.close(lock)


def test_a_lock_that_is_held_is_not_waited_for_in_silence(tmp_path: Path) -> None:
    """The wait ends, and says who holds it."""
    path = tmp_path / "deploy.guard"
    path.touch()
    code = "import fcntl,sys,time; f=open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()  # type: ignore[union-attr]
        try:
            with pytest.raises(Held, match=rf"by process {holder.pid} \(.*fcntl.flock"):
                take(path, 0.3)
        finally:
            holder.kill()
    lock = take(path, 0.3)
    with pytest.raises(BlockingIOError), path.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(lock)
