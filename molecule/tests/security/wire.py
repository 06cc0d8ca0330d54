"""Bytes to a server and what came back, on connections that nothing puts right on the way."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

import h11
from remote import Remote

# By the name of the app: where it listens, and the host name that Nginx knows it by.
PORTS = {"echo": 8080, "twin": 8081}
NGINX = 80
# A server that has answered and neither closes nor says more within this time is done.
QUIET = 0.5


@dataclass
class Answer:
    """A response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    complete: bool = False

    def header(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for key, value in self.headers if key == name.lower()]


@dataclass
class Exchange:
    """What came back for some bytes."""

    answers: list[Answer] = field(default_factory=list)
    closed: bool = False
    seconds: float = 0.0
    raw: bytes = b""

    @property
    def verdict(self) -> str:
        """The statuses in their order; what the server did, where it did not answer."""
        if self.raw and not self.answers:
            return f"not HTTP: {self.raw[:40]!r}"
        cut = [] if not self.answers or self.answers[-1].complete else ["cut"]
        statuses = [str(answer.status) for answer in self.answers] or ["closed" if self.closed else "waits"]
        return " ".join(statuses + cut)


def read_answers(raw: bytes, method: bytes, closed: bool) -> list[Answer]:
    """Take a stream of responses apart. Raises h11.RemoteProtocolError where it is none."""
    answers: list[Answer] = []
    while raw:
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 22)
        # Upper case: h11 knows that no body follows a HEAD.
        client.send(
            h11.Request(method="HEAD" if method == b"HEAD" else "GET", target="/", headers=[("Host", "x")])
        )
        client.send(h11.EndOfMessage())
        client.receive_data(raw)
        if closed:
            client.receive_data(b"")
        answer = None
        while True:
            try:
                event = client.next_event()
            except h11.RemoteProtocolError:
                if answer is None:
                    raise
                break  # cut off
            if isinstance(event, (h11.InformationalResponse, h11.Response)):
                headers = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
                answer = Answer(event.status_code, headers)
                answers.append(answer)
            elif isinstance(event, h11.Data):
                assert answer
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert answer
                answer.complete = True
                break
            else:  # more is to come, or will not
                return answers
        raw = client.trailing_data[0] if answer.complete else b""
    return answers


class Node(Remote):
    """A host of the scenario that answers bytes."""

    def exchange(self, port: int, raw: bytes, patience: float = 15) -> Exchange:
        """Send bytes, and read until the server closes, or has answered and is quiet, or is silent."""
        method = raw.lstrip().partition(b" ")[0]
        began = time.monotonic()
        result = Exchange()
        with self.connect(port) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(raw)
            while True:
                done = (
                    bool(result.answers) and result.answers[-1].complete and result.answers[-1].status > 199
                )
                connection.settimeout(QUIET if done else max(0.1, patience - (time.monotonic() - began)))
                try:
                    chunk = connection.recv(1 << 16)
                except TimeoutError:
                    break
                except ConnectionError:
                    chunk = b""
                result.raw += chunk
                result.closed = not chunk
                with contextlib.suppress(h11.RemoteProtocolError):
                    result.answers = read_answers(result.raw, method, result.closed)
                if result.closed:
                    break
        result.seconds = time.monotonic() - began
        return result
