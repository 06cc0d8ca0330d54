"""What a client gets from the fleet, while all is well and while a part of it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from testinfra.host import Host
from tornado.websocket import websocket_connect

from .conftest import Client, Load

testinfra_hosts = ["ansible://lb1"]
HostOf = Callable[[str], Host]


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest) -> HostOf:
    """Another host of the fleet, by its name."""
    from testinfra import get_host

    inventory = request.config.option.ansible_inventory
    return lambda name: get_host(f"ansible://{name}", ansible_inventory=inventory)


@pytest.mark.parametrize("path", ["/", "/requestme"])
def test_requestme_answers(client: Client, path: str) -> None:
    """The root is answered by the app's /requestme, which works by its own name too."""
    answer = client(path)
    assert answer.status == 200
    body = answer.json()
    assert body["app"] == "requestme"
    assert body["host"] in {"app1", "app2"}
    assert len(body["release"]) == 12


def test_round_robin_is_even(client: Client) -> None:
    """Both backends, on different Debian releases, take turns with one release."""
    counts = client.served_by(40)
    # Each worker of Nginx counts for itself until it has seen the shared zone change.
    assert counts["app1"] == pytest.approx(20, abs=2)
    assert counts["app2"] == pytest.approx(20, abs=2)
    assert len(client.releases()) == 1


def test_welcome_answers_below_its_prefix(client: Client) -> None:
    """The prefix is taken off, and without its slash it leads there."""
    assert client("/welcome/").body == "Welcome to Tornado..!!"
    redirect = client("/welcome")
    assert (redirect.status, redirect.headers["Location"]) == (301, "/welcome/")


@pytest.mark.parametrize("message", ["grüße", b"\x00\xff\x01"], ids=["text", "binary"])
def test_websocket_echoes(client: Client, message: str | bytes) -> None:
    """The balancer carries WebSockets."""

    async def echo() -> str | bytes | None:
        connection = await websocket_connect(f"ws://{client.address}/welcome/ws")
        await connection.write_message(message, binary=isinstance(message, bytes))
        answer = await connection.read_message()
        connection.close()
        return answer

    assert asyncio.run(echo()) == message


@pytest.mark.parametrize("path", ["/nothing", "/requestme/below", "/healthz", "/readyz", "/index.html"])
def test_only_routes_are_served(client: Client, path: str) -> None:
    """Health paths and everything else stay inside."""
    assert client(path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "FOO"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    """The app allows GET only, and Nginx knows no methods of its own invention."""
    assert client("/requestme", method).status == 405


def test_each_hit_is_printed_once(client: Client, node: HostOf) -> None:
    """What the app prints is in the journal of the backend that served it."""

    def printed() -> int:
        command = "journalctl -q --no-pager -o cat -u 'welcome-*.service' | grep -c 'Someone called me'"
        return sum(int(node(name).run(command).stdout) for name in ("app1", "app2"))

    before = printed()
    for _ in range(6):
        assert client("/welcome/").status == 200
    assert printed() == before + 6


@pytest.fixture(params=["stop the app", "kill Gunicorn", "stop the slot"])
def broken(request: pytest.FixtureRequest, node: HostOf) -> Iterator[str]:
    """One backend with its app in trouble, mended afterwards."""
    app1 = node("app1")
    slot = app1.check_output("systemctl list-units --plain --no-legend 'requestme-*.service' | cut -d' ' -f1")
    command = {
        "stop the app": "systemctl stop requestme.socket",
        "kill Gunicorn": f"systemctl kill --signal=KILL {slot}",
        "stop the slot": f"systemctl stop {slot}",
    }[request.param]
    app1.check_output(command)
    yield request.param
    app1.check_output(f"systemctl start requestme.socket {slot}")


def test_no_request_is_lost_with_one_backend(client: Client, broken: str) -> None:
    """200 requests, 0 failures. A stopped app takes no part; a crashed one comes back by itself."""
    counts = client.served_by(200)
    assert sum(counts.values()) == 200
    if broken == "stop the app":
        assert set(counts) == {"app2"}


def test_a_mended_backend_serves_again(client: Client) -> None:
    """After the failures above both take turns again."""
    import time

    deadline = time.monotonic() + 15
    while set(client.served_by(4)) != {"app1", "app2"}:
        assert time.monotonic() < deadline, "app1 does not come back"


def test_load_sees_failures(client: Client) -> None:
    """The yardstick of the other tests works: it counts what is not a 200."""
    with Load(Client("127.0.0.1:9")) as load:
        pass
    assert load.sent == len(load.failures) > 0
