"""One readiness check of a slot, and what a run tells while it waits for the next."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import stat
import time
from pathlib import Path

# The action plugin shows what is in this file while the module works.
PROGRESS = Path("/run/paddock/progress.json")


class Unproven(Exception):
    """A slot does not answer as it should; the message says what it did."""


class Hopeless(Unproven):
    """It answers, and will never answer as it should."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def ask(sock: Path, path: str, host: str, release: str) -> None:
    """Ask a slot once whether it is ready.

    The request looks like one that came through the balancer by https: an app may check its host, and may
    redirect http.

    Args:
        sock: The slot's own socket.
        path: The app's health path.
        host: A host name that the app is for.
        release: Id of the release, which the answer has to name.

    Raises:
        Hopeless: The app answers and waiting does not change what it says.
        Unproven: It does not answer as it should yet.
    """
    url = f"http+unix:/{sock}{path}"
    sent = f"Host: {host}, X-Forwarded-Proto: https"
    connection = _UnixConnection(sock, timeout=5)
    try:
        connection.request("GET", path, headers={"Host": host, "X-Forwarded-Proto": "https"})
        response = connection.getresponse()
        body = response.read(65536).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        raise Unproven(f"GET {url}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    status = response.status
    if status == 200 and release in body:
        return
    if status == 200:
        raise Hopeless(
            f"GET {url}: status 200, but the answer does not name the release {release}: the app has to"
            f" return the environment variable APP_RELEASE in it. It said: {body[:300]}"
        )
    if 500 <= status < 600 or status in (408, 425, 429):
        raise Unproven(f"GET {url}: status {status}, want 200: {body[:300]}")
    advice = _advice(status, response.getheader("Location"), path, host)
    raise Hopeless(f"GET {url} ({sent}): status {status}, want 200{advice}. It said: {body[:300]}")


def count(folder: Path) -> None:
    """See whether all workers of a slot have imported the app: one that answers says nothing of the others.

    Args:
        folder: Where the slot's process counts them; one of an earlier checkout does not.

    Raises:
        Unproven: Some have not yet.
    """
    workers = read_from_app(folder / "workers").strip()
    if workers.isdecimal():
        up = len(read_from_app(folder / "booted").splitlines())
        if up < int(workers):
            raise Unproven(f"{up} of {workers} workers have imported the app")


def read_from_app(path: Path) -> str:
    """Read a small file in a folder of the app's, as root: no link is followed, and nothing but a file read.

    Args:
        path: The file.

    Returns:
        Its text, or nothing.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return os.read(file, 8192).decode("utf-8", "replace") if stat.S_ISREG(os.fstat(file).st_mode) else ""
    finally:
        os.close(file)


def _advice(status: int, location: str | None, path: str, host: str) -> str:
    """What to do about an answer that waiting does not change."""
    if location:
        return f", but it redirects to {location}: answer {path} without a redirect"
    if status == 404:
        return f": the app has no {path}; add it, or name the path that it has as health_path in apps.yml"
    if status == 400:
        return f": does the app accept the host {host}? It is the first of its server_names in apps.yml"
    if status in (401, 403):
        return f": answer {path} without a login and for the host {host}"
    if status == 405:
        return f": answer GET at {path}"
    return f": answer {path} with 200 when the app is ready"


def tell(app: str, slot: str, limit: int, since: float, said: str) -> None:
    """Leave word of what is waited for, for who watches the run.

    Args:
        app: Name of the app.
        slot: Its slot.
        limit: Seconds that it may take.
        since: When the wait began, in seconds since 1970.
        said: The last answer, without secrets.
    """
    with contextlib.suppress(OSError):
        PROGRESS.parent.mkdir(mode=0o755, exist_ok=True)
        part = PROGRESS.with_name(f".{PROGRESS.name}.part")
        word = {"app": app, "slot": slot, "limit": limit, "since": since, "said": said.partition("\n")[0]}
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(word, file)
        part.replace(PROGRESS)


def tell_no_more() -> None:
    """Nothing is waited for."""
    PROGRESS.unlink(missing_ok=True)


def now() -> float:
    """Seconds since 1970, by this host's clock."""
    return time.time()
