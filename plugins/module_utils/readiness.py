"""One readiness check of a slot, and what a run tells while it waits for the next."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import socket
import stat
import struct
import time
from pathlib import Path
from typing import Any

# The action plugin shows what is in this file while the module works.
PROGRESS = Path("/run/paddock/progress.json")
# Seconds for one whole answer, however slowly it comes.
PATIENCE = 5.0


CREDENTIALS = struct.Struct("iII")


class NotReady(Exception):
    """A slot does not answer as it should; the message says what it did."""


class NeverReady(NotReady):
    """It answers, and will never answer as it should."""


class _Bounded(socket.socket):
    """A socket whose peer has a limited time for all that it says: an app may send a byte a second."""

    def begin(self) -> None:
        """Let the time run."""
        self.end = time.monotonic() + PATIENCE
        self.settimeout(PATIENCE)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Receive as ever, within what is left of the time."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no whole answer within {PATIENCE:.0f} s")
        self.settimeout(left)
        return super().recv_into(*args, **kwargs)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket on which one user listens: root would ask whatever a link leads to."""

    def __init__(self, path: Path, uid: int) -> None:
        super().__init__("localhost")
        self.path, self.uid = path, uid

    def connect(self) -> None:
        if not stat.S_ISSOCK(self.path.lstat().st_mode):
            raise OSError(errno.ENOTSOCK, "it is not a socket")
        self.sock = sock = _Bounded(socket.AF_UNIX)
        sock.begin()
        sock.connect(str(self.path))
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        listener = CREDENTIALS.unpack(credentials)[1]
        if listener != self.uid:
            raise OSError(errno.EPERM, f"user {listener} listens there, not the app's user {self.uid}")


def ask(sock: Path, path: str, host: str, release: str, uid: int) -> None:
    """Ask a slot once whether it is ready.

    The request looks like one that came through the balancer by https: an app may check its host, and may
    redirect http.

    Args:
        sock: The slot's own socket.
        path: The app's health path.
        host: A host name that the app is for.
        release: Id of the release, which the answer has to name.
        uid: The app's user, who listens there.

    Raises:
        NeverReady: The app answers and waiting does not change what it says.
        NotReady: It does not answer as it should yet.
    """
    url = f"http+unix:/{sock}{path}"
    sent = f"Host: {host}, X-Forwarded-Proto: https"
    connection = _UnixConnection(sock, uid)
    try:
        connection.request("GET", path, headers={"Host": host, "X-Forwarded-Proto": "https"})
        response = connection.getresponse()
        body = response.read(65536).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"GET {url}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    status = response.status
    if status == 200 and release in body:
        return
    if status == 200:
        raise NeverReady(
            f"GET {url}: status 200, but the answer does not name the release {release}: the app has to"
            f" return the environment variable APP_RELEASE in it. It said: {body[:300]}"
        )
    if 500 <= status < 600 or status in (408, 425, 429):
        raise NotReady(f"GET {url}: status {status}, want 200: {body[:300]}")
    advice = _advice(status, response.getheader("Location"), path, host)
    raise NeverReady(f"GET {url} ({sent}): status {status}, want 200{advice}. It said: {body[:300]}")


def count(folder: Path) -> None:
    """See whether all workers of a slot have imported the app: one that answers says nothing of the others.

    Args:
        folder: Where the slot's process counts them; one of an earlier checkout does not.

    Raises:
        NotReady: Some have not yet.
    """
    workers = read_from_app(folder / "workers").strip()
    if workers.isdecimal():
        up = len(read_from_app(folder / "booted").splitlines())
        if up < int(workers):
            raise NotReady(f"{up} of {workers} workers have imported the app")


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
        PROGRESS.parent.mkdir(mode=0o700, exist_ok=True)
        PROGRESS.parent.chmod(0o700)
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
