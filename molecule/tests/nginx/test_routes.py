"""Which request reaches which app, and as what."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from balancer import FIRST, SECOND, Balancer, Run

testinfra_hosts = ["ansible://balancers"]


@pytest.mark.parametrize(
    ("path", "app", "uri"),
    [
        ("/kept/", "kept", "/kept/"),
        ("/kept/a/b?c=d&e", "kept", "/kept/a/b?c=d&e"),
        ("/kept/a%2Fb%20%3f", "kept", "/kept/a%2Fb%20%3f"),
        ("/kept/deepe", "kept", "/kept/deepe"),
        ("/one?a=b", "kept", "/one?a=b"),
        ("/two?a=b", "kept", "/elsewhere?a=b"),
        ("/stripped/", "stripped", "/"),
        ("/stripped/a/b?c=d", "stripped", "/a/b?c=d"),
        ("/stripped/ws", "stripped", "/ws"),
        ("/kept/deeper/a", "stripped", "/below/a"),
        # As it was sent, but for the prefix: a %2F is no /, and // is not /.
        ("/stripped/a%2Fb//c?x=1", "stripped", "/a%2Fb//c?x=1"),
        ("/stripped/%61%3f%23%20?x=%2F&y=//", "stripped", "/%61%3f%23%20?x=%2F&y=//"),
        ("/stripped/?", "stripped", "/?"),
        ("/stripped/a//", "stripped", "/a//"),
        ("/kept/deeper/a%2fb//c", "stripped", "/below/a%2fb//c"),
        # The prefix in another spelling is the same route.
        ("//stripped/a/b?c=d", "stripped", "/a/b?c=d"),
        ("/%73tripped/a?c=d", "stripped", "/a?c=d"),
        ("/stripped//ws?c=d", "stripped", "/ws?c=d"),
    ],
)
def test_path(balancer: Balancer, path: str, app: str, uri: str) -> None:
    """The most specific route wins, and the app sees the path that the route says."""
    answer = balancer.ask(path)
    assert answer.status == 200
    assert (answer.received.app, answer.received.uri) == (app, uri)


@pytest.mark.parametrize(
    "path", ["/", "/one/", "/onemore", "/keptfast/", "/two/below", "/admin", "/generation"]
)
def test_unknown_path(balancer: Balancer, path: str) -> None:
    """A path of no route reaches no app."""
    answer = balancer.ask(path)
    assert answer.status == 404
    assert balancer.arrived(answer.id) == []


def test_path_without_its_slash(balancer: Balancer) -> None:
    """The redirect names no host, so it works behind any name and port."""
    answer = balancer.ask("/stripped?a=b")
    assert (answer.status, answer.header("Location")) == (301, ["/stripped/?a=b"])


@pytest.mark.parametrize(
    "path", ["/stripped/../kept/", "/stripped/a/%2e%2e/b", "/stripped/a%2f..%2fb", "/stripped/."]
)
def test_dots_are_refused(balancer: Balancer, path: str) -> None:
    """A path that says another place than its route reaches no app."""
    answer = balancer.ask(path)
    assert answer.status == 400
    assert balancer.arrived(answer.id) == []


@pytest.mark.parametrize("location", ["/below", "http://example.org/below", "https://example.org:8443/x?y=z"])
@pytest.mark.parametrize("path", ["/stripped/a", "//stripped/a", "/kept/", "/two"])
def test_redirect_of_the_app(balancer: Balancer, path: str, location: str) -> None:
    """The app knows its names and its prefix: what it says is passed on."""
    answer = balancer.ask(f"{path}?status=302&header=Location:{location.replace('?', '%3F')}")
    assert (answer.status, answer.header("Location")) == (302, [location])


@pytest.mark.parametrize(
    ("name", "app"),
    [
        ("shop.example.org", "shop"),
        ("SHOP.example.org:8080", "shop"),
        ("www.shop.example.org", "shop"),
        ("example.org", "kept"),
    ],
)
def test_server_name(balancer: Balancer, name: str, app: str) -> None:
    """An app with names gets all paths of its names, and nothing of the others'."""
    assert balancer.ask("/one", headers={"Host": name}).received.app == app


def test_unknown_server_name(balancer: Balancer, role: Callable[..., Run]) -> None:
    """Where all apps have names, the others are closed without an answer."""
    shop = {"name": "shop", "framework": "flask", "port": 9105, "server_names": ["shop.example.org"]}
    assert role(apps=[{**shop, "routes": [{"path": "/"}]}]).ok
    assert balancer.ask("/", headers={"Host": "shop.example.org"}).received.app == "shop"
    assert balancer.send(b"GET / HTTP/1.1\r\nHost: evil.example.org\r\n\r\n") == b""
    assert balancer.send(b"GET / HTTP/1.0\r\n\r\n") == b""


@pytest.mark.parametrize("path", ["/kept/", "/small/"])
def test_both_backends_take_part(balancer: Balancer, path: str) -> None:
    """Round robin and least_conn alternate, across all workers of Nginx."""
    hosts = [balancer.ask(path).received.host for _ in range(8)]
    assert hosts.count(FIRST) == hosts.count(SECOND) == 4


def test_ip_hash(balancer: Balancer) -> None:
    """A client stays with its backend."""
    assert len({balancer.ask("/sticky/").received.host for _ in range(8)}) == 1


def test_random(balancer: Balancer) -> None:
    """Both backends get a share (by chance not, once in 2^19)."""
    answers = [balancer.ask("/", headers={"Host": "shop.example.org"}) for _ in range(20)]
    assert {answer.received.host for answer in answers} == {FIRST, SECOND}
