"""What the tests of the role gunicorn share: nodes to ask, traffic, and runs of the playbook."""

from __future__ import annotations

import copy
import functools
import http.client
import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from remote import Remote
from testbed import EPHEMERAL, INSTANCES, ROOT, Run, killed, play

PLAYBOOK = str(ROOT / "molecule/gunicorn/converge.yml")
DESCRIPTION = yaml.safe_load(Path(PLAYBOOK).read_text())[0]["vars"]["apps"]
SLOTS = ("blue", "green")


class Answer(NamedTuple):
    """What a client got, and when."""

    status: int
    text: str
    at: float

    @property
    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.text)


class Slot(NamedTuple):
    """A running slot."""

    color: str
    pid: int


class Node(Remote):
    """A host that serves the apps."""

    @functools.cached_property
    def debian(self) -> int:
        """Debian's version."""
        return int(self.sh(". /etc/os-release; echo $VERSION_ID"))

    def http(self, port: int, path: str = "/", body: str | None = None, **headers: str) -> Answer:
        """Send one request on a connection of its own: GET, or POST where there is a body."""
        connection = http.client.HTTPConnection(*self.reach(port), timeout=20)
        try:
            connection.request("POST" if body is not None else "GET", path, body=body, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, response.read().decode(), time.monotonic())
        finally:
            connection.close()

    def slot(self, app: str) -> Slot:
        """The slot of an app that serves; there must be exactly one, wanted at boot, and no preflight."""
        active = self.sh(
            f"systemctl list-units --plain --no-legend --all '{app}-*.service' --state=active | cut -d' ' -f1"
        )
        assert active in [f"{app}-{color}.service" for color in SLOTS], f"{app} on {self.name}: {active!r}"
        assert self.sh(f"cd /etc/systemd/system/multi-user.target.wants; ls | grep ^{app}-") == active
        assert self.sh(f"systemctl is-active {app}.socket") == "active"
        pid = int(self.sh(f"systemctl show --property=MainPID --value {active}"))
        return Slot(active.removeprefix(f"{app}-").removesuffix(".service"), pid)

    def release(self, app: str) -> str:
        """Release that the app says it is."""
        port = next(entry["port"] for entry in DESCRIPTION if entry["name"] == app)
        return self.http(port, "/readyz").json["release"]


@dataclass
class Fleet:
    """The description that the next run brings about. Tests change it as a user would."""

    source: Path
    nodes: list[Node]
    apps: list[dict[str, Any]] = field(default_factory=lambda: copy.deepcopy(DESCRIPTION))
    settings: dict[str, Any] = field(default_factory=dict)

    def app(self, name: str) -> dict[str, Any]:
        """The entry of an app."""
        return next(app for app in self.apps if app["name"] == name)

    def options(self) -> tuple[str, ...]:
        """What ansible-playbook is told of the description."""
        extra = self.source.parent / "extra.json"
        # Ansible would take a Jinja marker in an app's environment for a template; there is none.
        extra.write_text(json.dumps({"apps": self.apps, "fleet_app_src": str(self.source), **self.settings}))
        return "-e", f"@{extra}"

    def run(self, *arguments: str, rc: int = 0) -> Run:
        """Run the playbook to its end."""
        run = play(PLAYBOOK, *self.options(), *arguments)
        assert (run.rc != 0) == (rc != 0), f"exit status {run.rc}\n{run.output}"
        return run

    def configure(self, *arguments: str, rc: int = 0) -> Run:
        """Run the role gunicorn only: the releases are there."""
        return self.run("--tags", "gunicorn", *arguments, rc=rc)

    def killed(self, *arguments: str) -> AbstractContextManager[None]:
        """Begin a run, and kill it with all its processes here at the end of the block."""
        return killed(PLAYBOOK, *self.options(), *arguments)


@dataclass
class Load:
    """Requests in a loop, in a thread of its own. Whatever is not 200 is a failure."""

    request: Callable[[], Answer]
    pause: float = 0.03
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self.request()
                self.answers.append(answer)
                if answer.status != 200:
                    self.failures.append(f"{answer.status}: {answer.text[:200]}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            self._stop.wait(self.pause)

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@dataclass
class Call:
    """One request that takes a while, in a thread of its own."""

    request: Callable[[], Answer]
    outcome: Answer | Exception | None = None

    def _call(self) -> None:
        try:
            self.outcome = self.request()
        except (OSError, http.client.HTTPException) as error:
            self.outcome = error

    def __enter__(self) -> Call:
        self._thread = threading.Thread(target=self._call)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()


class WebSocket:
    """As much of RFC 6455 as it takes to be told to go away."""

    def __init__(self, address: tuple[str, int], path: str) -> None:
        self.socket = socket.create_connection(address, timeout=60)
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: cGFkZG9jay1wYWRkb2NrIQ==\r\n\r\n".encode()
        )
        self.stream = self.socket.makefile("rb")
        assert b" 101 " in self.stream.readline()
        while self.stream.readline().strip():
            pass

    def closed_with(self) -> int:
        """Wait for the close frame; returns its code."""
        opcode, length = self.stream.read(2)
        assert opcode == 0x88, f"frame {opcode:#x}"
        return struct.unpack("!H", self.stream.read(length)[:2])[0]


def _until(condition: Callable[[], Any], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.05)


NODES = {instance["instance"]: Node(instance) for instance in INSTANCES}


@pytest.fixture(scope="session", autouse=True)
def hang_up() -> Iterator[None]:
    """Leave no connection behind."""
    yield
    for node in NODES.values():
        node.hang_up()


@pytest.fixture(params=sorted(NODES))
def node(request: pytest.FixtureRequest) -> Node:
    """Each node."""
    return NODES[request.param]


@pytest.fixture(scope="session")
def nodes() -> list[Node]:
    """All nodes."""
    return list(NODES.values())


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory, nodes: list[Node]) -> Fleet:
    """The apps, in a folder that tests may change."""
    source = tmp_path_factory.mktemp("fleet") / "app_src"
    subprocess.run(["cp", "-r", EPHEMERAL / "app_src", source], check=True)
    return Fleet(source, nodes)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Wait for a condition."""
    return _until


@pytest.fixture(scope="session")
def load() -> type[Load]:
    """Traffic."""
    return Load


@pytest.fixture(scope="session")
def call() -> type[Call]:
    """One slow request."""
    return Call


@pytest.fixture(scope="session")
def websocket() -> type[WebSocket]:
    """A WebSocket client."""
    return WebSocket


@pytest.fixture
def reboot() -> Callable[[list[Node]], None]:
    """Boot nodes again, as a power failure would."""

    def reboot(nodes: list[Node]) -> None:
        for node in nodes:
            node.hang_up()
        names = [node.container for node in nodes]
        subprocess.run(["podman", "restart", "--time", "0", *names], check=True, capture_output=True)
        for node in nodes:
            _until(
                lambda node=node: node.sh("systemctl is-system-running", check=False) == "running",
                "it is up",
                40,
            )

    return reboot
