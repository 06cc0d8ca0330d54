"""A balancer: from outside by HTTP, from inside by its files and by what reached its upstream."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from testinfra.host import Host

SCENARIO = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / "molecule/nginx"
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
INSTANCES = yaml.safe_load(Path(os.environ["MOLECULE_INSTANCE_CONFIG"]).read_text())
URLS = {instance["instance"]: instance["url"] for instance in INSTANCES}
APPS = {app["name"]: app for app in yaml.safe_load((SCENARIO / "group_vars/all.yml").read_text())["apps"]}
BY_PORT = {app["port"]: name for name, app in APPS.items()}
FIRST, SECOND = "127.0.0.2", "127.0.0.3"
STATUS = "/run/paddock-nginx/status.sock"
ASK_STATUS = f"""\
import http.client, json, socket, sys
nginx = http.client.HTTPConnection("localhost")
nginx.sock = socket.socket(socket.AF_UNIX)
nginx.sock.connect({STATUS!r})
nginx.request("GET", sys.argv[1])
response = nginx.getresponse()
print(json.dumps([response.status, response.read().decode()]))
"""


@dataclass(frozen=True)
class Received:
    """A request as the upstream saw it."""

    app: str
    host: str
    method: str
    uri: str
    headers: list[list[str]]
    body: int

    @classmethod
    def of(cls, line: str | bytes) -> Received:
        """Read what the upstream wrote."""
        fields = json.loads(line)
        return cls(app=BY_PORT[fields.pop("port")], **fields)

    def header(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@dataclass(frozen=True)
class Answer:
    """A response as the client saw it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def of(cls, response: http.client.HTTPResponse) -> Answer:
        """Read a response to its end."""
        body = response.read()
        return cls(response.status, response.getheaders(), body)

    def header(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def id(self) -> str:
        """The request's id."""
        (value,) = self.header("X-Request-Id")
        return value

    @property
    def received(self) -> Received:
        """What the upstream says it was sent."""
        return Received.of(self.body)


class State(NamedTuple):
    """What a balancer has and runs."""

    file: str
    generation: str
    workers: str


class Run(NamedTuple):
    """A run of the role."""

    ok: bool
    changed: int
    output: str


class Balancer:
    """One balancer of the scenario."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.name: str = host.backend.host
        address, _, port = URLS[self.name].removeprefix("http://").partition(":")
        self.address = (address, int(port))

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request on a connection of its own."""
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        try:
            connection.request(method, path, body, dict(headers or {}))
            return Answer.of(connection.getresponse())
        finally:
            connection.close()

    def send(self, data: bytes, hang_up: bool = False) -> bytes:
        """Send bytes and return all bytes that come until the balancer closes."""
        answer = b""
        with socket.create_connection(self.address, timeout=20) as connection:
            connection.sendall(data)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    answer += chunk
        return answer

    def arrived(self, request_id: str) -> list[Received]:
        """Return each try of a request that reached the upstream."""
        found = self.host.run("grep -F -- %s /var/log/upstream.log", request_id)
        return [Received.of(line) for line in found.stdout.splitlines()]

    def log(self) -> list[dict[str, Any]]:
        """Return the access log; raises ValueError where a line is not JSON."""
        content = self.host.file("/var/log/nginx/access.log").content
        # Nginx writes bytes that are no UTF-8 as they came.
        return [json.loads(line.decode(errors="replace")) for line in content.splitlines()]

    def logged(self, key: str, value: str) -> dict[str, Any]:
        """Return a request's line in the access log, which Nginx writes after the answer."""
        deadline = time.monotonic() + 5
        while not (found := [line for line in self.log() if line[key] == value]):
            assert time.monotonic() < deadline, f"the log has no line with {key} {value}"
            time.sleep(0.1)
        (line,) = found
        return line

    def status(self, path: str) -> tuple[int, str]:
        """Ask Nginx's status server, as root; returns status and body."""
        answer = json.loads(self.host.check_output("python3 -c %s %s", ASK_STATUS, path))
        return answer[0], answer[1]

    def state(self) -> State:
        """Return what would tell that something happened to Nginx."""
        return State(
            file=self.host.file("/etc/nginx/nginx.conf").sha256sum,
            generation=self.status("/generation")[1],
            # Not all children: those that look after the cache come and go.
            workers=self.host.check_output(
                "for pid in $(cat /proc/$(cat /run/nginx.pid)/task/*/children);"
                " do grep -la 'worker process' /proc/$pid/cmdline; done; true"
            ),
        )

    def run_role(self, *options: str, **variables: object) -> Run:
        """Run the role again, with some variables changed."""
        return self.play(SCENARIO / "converge.yml", *options, **variables)

    def play(self, playbook: Path, *options: str, **variables: object) -> Run:
        """Run a playbook."""
        done = subprocess.run(
            [
                *("ansible-playbook", f"--inventory={INVENTORY}", f"--limit={self.name}"),
                *(f"--extra-vars={json.dumps(variables)}", *options, str(playbook)),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        changed = re.search(r"changed=(\d+)", done.stdout)
        assert changed, done.stdout + done.stderr
        return Run(done.returncode == 0, int(changed[1]), done.stdout + done.stderr)
