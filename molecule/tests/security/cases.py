"""All rows on all their ways: each node, each app, through Nginx and straight to Gunicorn."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from rows import ROWS, TAG, Row
from testbed import INSTANCES
from wire import NGINX, PORTS, Exchange, Node

NODES = {instance["instance"]: Node(instance) for instance in INSTANCES}
# Beyond the longest of Nginx's time limits for clients; a bare Gunicorn has none.
NGINX_PATIENCE, GUNICORN_PATIENCE = 14, 2
# Fewer than one client address may have connections.
AT_ONCE = 32


class Case(NamedTuple):
    """A row on its way to an app."""

    row: Row
    node: str
    app: str
    way: str

    @property
    def verdict(self) -> str:
        """What the row says for this way and this app."""
        if self.way == "nginx":
            return (self.app == "twin" and self.row.nginx_tornado) or self.row.nginx
        return self.row.tornado if self.app == "twin" else self.row.gthread

    def __str__(self) -> str:
        return f"{self.row.name}, {self.way}, {self.app}, {self.node}"


class Outcome(NamedTuple):
    """What became of it: what the client got, and what the app says it was asked."""

    tag: bytes
    raw: bytes
    exchange: Exchange
    notes: list[dict[str, Any]]


WAYS = ("nginx", "direct")
CASES = [Case(*case) for case in itertools.product(ROWS, NODES, PORTS, WAYS)]


def fill(data: bytes, tag: bytes, app: str) -> bytes:
    """Put the tag and the app's name in."""
    return data.replace(TAG, tag).replace(b"echo", app.encode()).replace(b"ECHO", app.upper().encode())


def seen(node: str, app: str) -> list[str]:
    """Return the app's notes, a line a request."""
    return NODES[node].sh(f"cat /var/lib/paddock/{app}/seen").splitlines()


def run_all() -> dict[str, Outcome]:
    """Send all rows, side by side, and read the apps' notes."""
    numbers = itertools.count(100000)

    def send(case: Case) -> tuple[bytes, bytes, Exchange]:
        tag = b"tag%d" % next(numbers)
        raw = fill(case.row.raw, tag, case.app)
        direct = case.way == "direct"
        port, patience = (PORTS[case.app], GUNICORN_PATIENCE) if direct else (NGINX, NGINX_PATIENCE)
        return tag, raw, NODES[case.node].exchange(port, raw, patience)

    for node in NODES.values():
        node.sh("rm -f /var/lib/paddock/*/seen")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sent = list(pool.map(send, CASES))
    notes = {(node, app): seen(node, app) for node in NODES for app in PORTS}
    found = {}
    for case, (tag, raw, exchange) in zip(CASES, sent, strict=True):
        lines = [json.loads(line) for line in notes[case.node, case.app] if tag.decode() in line]
        found[str(case)] = Outcome(tag, raw, exchange, lines)
    return found
