"""requestme: a Flask app that says which host answered, and remembers what it was told to do."""

import fcntl
import os
import re
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask, abort, request
from werkzeug.middleware.proxy_fix import ProxyFix

ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
LEDGER_BYTES = 4_000_000
SLOWEST = 20.0  # seconds


class Ledger:
    """What was executed on this host: one id a line, shared by all processes and releases of the app.

    Args:
        folder: Where the two files are, the current one and the one before. Made when needed.
        limit: Size in bytes at which the current file takes the other's place, so that clients
            cannot fill the disk.
    """

    def __init__(self, folder: Path, limit: int = LEDGER_BYTES) -> None:
        self.folder, self.limit = folder, limit
        self.current, self.old = folder / "ledger", folder / "ledger.old"

    def append(self, id_: str) -> None:
        """Add an id for good; raises OSError where it could not be written whole."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = f"{id_}\n".encode()
        # One write in append mode is whole among other processes' writes.
        file = os.open(self.current, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if os.write(file, line) != len(line):
                raise OSError("the ledger's disk is full")
            if os.fstat(file).st_size > self.limit:
                self._rotate(os.fstat(file).st_ino)
        finally:
            os.close(file)

    def ids(self, prefix: str) -> list[str]:
        """All ids that begin with a prefix, oldest first."""
        if not self.folder.exists():
            return []
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            texts = [path.read_text() for path in (self.old, self.current) if path.exists()]
        return [line for text in texts for line in text.splitlines() if line.startswith(prefix)]

    def _rotate(self, inode: int) -> None:
        with (self.folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # another process is at it, or the next append will be
            # It may have been rotated since this process opened it.
            if self.current.exists() and self.current.stat().st_ino == inode:
                self.current.replace(self.old)


def create_app(test_config: Mapping[str, Any] | None = None) -> Flask:
    """Build the application.

    Args:
        test_config: Settings that win over the defaults and the environment.

    Returns:
        The WSGI application.
    """
    app = Flask(__name__, static_folder=None)
    app.config.from_mapping(
        APP_NAME=os.environ.get("APP_NAME", "requestme"),
        APP_RELEASE=os.environ.get("APP_RELEASE", "development"),
        PROVIDE_AUTOMATIC_OPTIONS=False,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=True,
    )
    # systemd names a folder that outlives releases; outside of it, nothing needs to last.
    state = os.environ.get("STATE_DIRECTORY") or f"{tempfile.gettempdir()}/requestme-{os.getuid()}"
    app.config["STATE"] = state
    app.config.from_mapping(test_config)
    ledger = Ledger(Path(app.config["STATE"]))

    # Exactly one proxy stands in front. It passes Host on unchanged, so X-Forwarded-Host could
    # only come from a client.
    app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
        app.wsgi_app, x_for=1, x_proto=1, x_host=0, x_prefix=1
    )

    def who() -> dict[str, str]:
        return {
            "host": socket.gethostname(),
            "app": app.config["APP_NAME"],
            "release": app.config["APP_RELEASE"],
        }

    @app.get("/requestme")
    def requestme() -> dict[str, str]:
        return {"message": "Thank you for requesting me.", **who()}

    @app.get("/requestme/slow")
    def slow() -> dict[str, str]:
        seconds = request.args.get("seconds", type=float)
        if seconds is None or not 0 <= seconds <= SLOWEST:
            abort(400, f"seconds: a number from 0 to {SLOWEST:.0f}")
        time.sleep(seconds)
        return requestme()

    @app.post("/requestme/ledger")
    def execute() -> dict[str, str]:
        told = request.get_json(silent=True)
        id_ = told.get("id") if isinstance(told, dict) else request.values.get("id")
        if not isinstance(id_, str) or not ID.fullmatch(id_):
            abort(400, f"id: {ID.pattern}")
        ledger.append(id_)
        return {"id": id_, **who()}

    @app.get("/requestme/ledger")
    def executed() -> dict[str, str | list[str]]:
        run = request.args.get("run", "")
        if not ID.fullmatch(run):
            abort(400, f"run: {ID.pattern}")
        return {"host": socket.gethostname(), "ids": ledger.ids(run)}

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {
            "status": "ready",
            "app": app.config["APP_NAME"],
            "release": app.config["APP_RELEASE"],
        }

    return app


app = create_app()

if __name__ == "__main__":
    app.run(host="127.0.0.1", port=9090, debug=False)
