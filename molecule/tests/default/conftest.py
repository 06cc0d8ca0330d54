"""What the tests of the whole fleet share: a client, and the playbook that users run."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from testbed import NODES, ROOT, Run, play


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: http.client.HTTPMessage
    body: str

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.body)


class Client:
    """Somebody outside who knows the balancer's address only. Each request has its own connection."""

    def __init__(self, url: str) -> None:
        self.address = url.removeprefix("http://")

    def __call__(self, path: str, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
        """Send one request; raises OSError or http.client.HTTPException where no answer comes."""
        connection = http.client.HTTPConnection(self.address, timeout=15)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()

    def served_by(self, requests: int) -> Counter[str]:
        """Count which backends answer; every request must succeed."""
        answers = [self("/requestme") for _ in range(requests)]
        assert {answer.status for answer in answers} == {200}
        return Counter(answer.json()["host"] for answer in answers)

    def releases(self) -> set[str]:
        """Releases that answer now."""
        return {self("/requestme").json()["release"] for _ in range(12)}


@dataclass
class Load:
    """Requests that go on while something happens."""

    client: Client
    sent: int = 0
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.sent += 1
            try:
                answer = self.client("/requestme")
                if answer.status != 200:
                    self.failures.append(f"{answer.status}: {answer.body[:100]}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            time.sleep(0.02)

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="session")
def client() -> Client:
    """A client of the balancer."""
    return Client(NODES["lb1"]["url"])


@pytest.fixture
def load(client: Client) -> Load:
    """Traffic to switch on with `with`."""
    return Load(client)


@pytest.fixture(scope="session")
def site() -> Callable[..., Run]:
    """Run `ansible-playbook site.yml` as a user would, with further arguments."""
    return partial(play, "site.yml")


@pytest.fixture
def app_src(tmp_path: Path) -> Iterator[Path]:
    """A copy of app_src/ to edit."""
    yield Path(shutil.copytree(ROOT / "app_src", tmp_path / "app_src"))
