"""An app that was taken over gets nothing of the others, of the host, or of the next deploy."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks import ATTACKS, FORBIDS_PORTS, FORBIDS_SIGNALS, LINUX, VICTIM, VICTIM_PORT
from cases import NODES
from wire import NGINX, Node

PROGRAM = (Path(__file__).parent / "attacks.py").read_bytes()
METADATA = "169.254.169.254"
NEEDED = {"open_a_port": FORBIDS_PORTS, "signal_a_process_of_its_own_user": FORBIDS_SIGNALS}
# Takes a port and answers each connection for a while; says whether it got it.
TAKE = b"""
import socket, sys, threading, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", %d))
listener.listen()
import os
if os.fork() == 0:
    os.setsid()
    for number in (0, 1, 2):
        os.close(number)
    listener.settimeout(20)
    while True:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nevil")
        connection.close()
print("listens")
"""


def run_in_app(node: Node, program: bytes) -> tuple[int, str]:
    """Run a program in the place of the app echo."""
    connection = http.client.HTTPConnection("127.0.0.1", timeout=60)
    connection.sock = node.connect(NGINX)
    try:
        connection.request("POST", "/run", program, {"Host": "echo.test", "Content-Type": "text/x-python"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module", params=sorted(NODES))
def attacked(request: pytest.FixtureRequest, tunnels: None) -> Iterator[tuple[str, dict[str, str]]]:
    """A node, and what each attack has got there."""
    node = NODES[request.param]
    # As each installation of a package: some of systemd's options lose their effect by it.
    node.sh(
        f"systemctl daemon-reload; ip address add {METADATA}/32 dev lo;"
        " mkdir -p /tmp/metadata; echo key > /tmp/metadata/tag;"
        f" systemd-run --collect --unit=metadata --working-directory=/tmp/metadata "
        f" python3 -m http.server 81 --bind {METADATA};"
        # As the next slot would be: a process of the app's user, not of this slot.
        " systemd-run --collect --unit=next-slot --uid=echo --property=PrivateUsers=yes sleep 600"
    )
    try:
        status, said = run_in_app(node, PROGRAM)
        assert status == 200, said
        yield request.param, json.loads(said)
    finally:
        node.sh(f"systemctl stop metadata next-slot; ip address del {METADATA}/32 dev lo", check=False)


@pytest.mark.parametrize("attack", [attack.__name__ for attack in ATTACKS])
def test_attack(attacked: tuple[str, dict[str, str]], attack: str) -> None:
    """It is refused."""
    _, outcome = attacked
    if NEEDED.get(attack, LINUX) > LINUX:
        pytest.skip("this kernel cannot; docs/security.md")
    assert outcome[attack] == "", outcome[attack]


def test_the_metadata_server_was_there(attacked: tuple[str, dict[str, str]]) -> None:
    """Root reaches it, so the attack was a good one."""
    node = NODES[attacked[0]]
    assert (
        node.sh(
            f"python3 -c 'import urllib.request as u; print(u.urlopen(\"http://{METADATA}:81/tag\").read())'"
        )
        == "b'key\\n'"
    )


def test_what_was_attacked_is_as_before(attacked: tuple[str, dict[str, str]]) -> None:
    """The other app serves, and no unit has the status that the attacker has sent."""
    node = NODES[attacked[0]]
    assert "evil" not in node.sh("systemctl show --property=StatusText 'echo-*' 'twin-*'")
    assert node.sh(f"systemctl is-active {VICTIM}.socket") == "active"
    if LINUX >= FORBIDS_SIGNALS:
        assert node.sh("systemctl is-active next-slot") == "active"


def test_a_port_of_another_app_brings_nothing(attacked: tuple[str, dict[str, str]]) -> None:
    """While that app's socket is closed. Who asks there gets no answer: Nginx, the health checks, root."""
    node = NODES[attacked[0]]
    node.sh(f"systemctl stop {VICTIM}.socket")
    try:
        run_in_app(node, TAKE % VICTIM_PORT)
        ask = (
            f"import socket; s = socket.create_connection(('127.0.0.1', {VICTIM_PORT}), 2);"
            " s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); s.settimeout(2); print(s.recv(99))"
        )
        assert "evil" not in node.sh(f'python3 -c "{ask}" 2>&1', check=False)
    finally:
        node.sh(f"pkill -U echo -f '^.*python.* -I -$'; systemctl start {VICTIM}.socket", check=False)
    with contextlib.suppress(AssertionError):
        node.sh("systemctl reset-failed")
    assert node.sh(f"systemctl is-active {VICTIM}.socket") == "active"
