"""What an app may ask the balancer to keep, to limit and to say in its place."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex

import pytest
from balancer import APPS, SCENARIO, Answer, Balancer, Run

testinfra_hosts = ["ansible://balancers"]

PURGE = SCENARIO / "purge.yml"
# Asks Nginx for a path from each of some addresses, all at once; prints what it answered to them.
ASK_FROM = """\
import http.client, json, sys
from concurrent.futures import ThreadPoolExecutor
def ask(address):
    nginx = http.client.HTTPConnection("2001:db8:0:3::1", 80, source_address=(address, 0), timeout=20)
    nginx.request("GET", sys.argv[1])
    return nginx.getresponse().status
with ThreadPoolExecutor(64) as pool:
    print(json.dumps(list(pool.map(ask, sys.argv[2].split(",")))))
"""


def at_once(balancer: Balancer, path: str, number: int) -> list[Answer]:
    """Send requests side by side."""
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(balancer.ask, [path] * number))


def tries(balancer: Balancer, mark: str) -> int:
    """Return how many requests with a mark in their query reached a backend."""
    return int(balancer.host.run("grep -cF -- %s /var/log/upstream.log", mark).stdout)


def test_one_request_fills_the_cache(balancer: Balancer) -> None:
    """Twenty clients at once cost the backends one request; each answer has an id of its own."""
    mark = token_hex()
    answers = at_once(balancer, f"/cached/?slow=0.5&mark={mark}", 20)
    assert {answer.status for answer in answers} == {200}
    assert len({answer.id for answer in answers}) == 20
    assert tries(balancer, mark) == 1


def test_what_is_old_is_better_than_an_error(balancer: Balancer) -> None:
    """Backends that fail are not seen by those who ask for what was answered before."""
    path = f"/cached/?mark={token_hex()}"
    assert balancer.ask(path).status == 200
    balancer.host.check_output("systemctl stop upstream")
    try:
        time.sleep(3)  # older than the app allows
        assert balancer.ask(path).status == 200
        assert balancer.ask(f"/cached/?mark={token_hex()}").status == 502
    finally:
        balancer.host.check_output("systemctl start upstream")
        balancer.host.check_output(
            "timeout 20 bash -c 'until (echo > /dev/tcp/127.0.0.2/9106) 2>/dev/null; do sleep 0.1; done'"
        )


@pytest.mark.parametrize(
    ("method", "headers", "query"),
    [
        ("GET", {"Cookie": "session=1"}, ""),
        ("GET", {"Authorization": "Basic eDp5"}, ""),
        ("POST", {}, ""),
        ("GET", {}, "&header=Set-Cookie:session=1"),
        ("GET", {}, "&header=Cache-Control:private"),
        ("GET", {}, "&header=Cache-Control:no-store"),
        ("GET", {}, "&header=Cache-Control:max-age%3D1"),
        ("GET", {}, "&header=Cache-Control:public,+s-maxage%3D0"),
        ("GET", {}, "&header=Expires:-1"),
        ("GET", {}, "&status=500"),
    ],
    ids=[
        "cookie",
        "login",
        "post",
        "new-cookie",
        "private",
        "no-store",
        "shorter",
        "zero",
        "expired",
        "error",
    ],
)
def test_never_from_the_cache(balancer: Balancer, method: str, headers: dict[str, str], query: str) -> None:
    """What may be one person's, or wrong, is neither kept nor answered to the next."""
    mark = token_hex()
    path = f"/cached/?mark={mark}{query}"
    for _ in range(3):
        balancer.ask(path, method, headers=headers)
    assert tries(balancer, mark) == 3


@pytest.mark.parametrize(
    "says",
    [
        "X-Accel-Expires:3600",
        "Cache-Control:max-age%3D3600,+stale-while-revalidate%3D3600",
        "Cache-Control:max-age%3D2",
    ],
)
def test_kept_no_longer_than_described(balancer: Balancer, says: str) -> None:
    """No answer is kept for longer than cache_seconds: a bad release would outlive itself."""
    mark = token_hex()
    path = f"/cached/?mark={mark}&header={says}"
    balancer.ask(path)
    balancer.ask(path)
    assert tries(balancer, mark) == 1
    time.sleep(4)
    balancer.ask(path)  # what is old, while another one is fetched
    time.sleep(1)
    assert tries(balancer, mark) == 2


@pytest.mark.parametrize("says", ["X-Accel-Redirect:/one", "X-Accel-Limit-Rate:100", "X-Accel-Charset:utf-7"])
@pytest.mark.parametrize("path", ["/kept/", "/cached/", "/stripped/"])
def test_an_app_cannot_steer_nginx(balancer: Balancer, path: str, says: str) -> None:
    """Headers by which an app would choose another app's answer, or slow Nginx down, do nothing."""
    began = time.monotonic()
    answer = balancer.ask(f"{path}?header={says}&mark={token_hex()}")
    assert answer.received.uri != "/one"
    assert "utf-7" not in str(answer.headers)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_never_meets_the_cache(balancer: Balancer, chunked: bool) -> None:
    """The body of a GET is not in the key: its answer is for no other client, and no other's is for it."""
    path = f"/cached/?mark={token_hex()}"
    body = iter([b"evil"]) if chunked else b"evil"
    assert balancer.ask(path, body=body).received.body == 4
    assert balancer.ask(path).received.body == 0
    body = iter([b"evil"]) if chunked else b"evil"
    assert balancer.ask(path, body=body).received.body == 4


def test_what_was_kept_is_forgotten(balancer: Balancer, role: Callable[..., Run]) -> None:
    """After a switch no client gets what the release before had answered; other apps keep theirs."""
    assert role(apps=[{**app, "cache_seconds": 600} for app in APPS.values()]).ok
    paths = [f"/{app}/?mark={token_hex()}" for app in ("cached", "kept")]
    for path in paths * 2:
        balancer.ask(path)
    assert balancer.play(PURGE, "--check", nginx_purge=["cached"]).changed == 1
    assert balancer.play(PURGE, nginx_purge=["cached", "no-such-app"]).changed == 1
    assert balancer.play(PURGE, nginx_purge=["cached"]).changed == 0
    for path in paths * 2:
        balancer.ask(path)
    assert [tries(balancer, path.partition("=")[2]) for path in paths] == [2, 1]


def test_rate(balancer: Balancer) -> None:
    """More than the limit and its burst get 429, and no backend sees them; other apps do not mind."""
    mark = token_hex()
    statuses = Counter(answer.status for answer in at_once(balancer, f"/limited/?mark={mark}", 40))
    assert statuses.keys() == {200, 429}
    assert statuses[200] == tries(balancer, mark) < 20
    assert {answer.status for answer in at_once(balancer, "/kept/", 40)} == {200}


@pytest.mark.full
def test_rate_of_a_network(balancer: Balancer, role: Callable[..., Run]) -> None:
    """Who has a /64 has all of its addresses: they are one client, by rate and by requests under way."""
    there = [f"2001:db8:0:1::{number}" for number in range(40)] + ["2001:db8:0:2::1"]
    sh = balancer.host.check_output
    sh("ip -6 addr replace 2001:db8:0:3::1/64 dev lo nodad")
    for address in there:
        sh(f"ip -6 addr replace {address}/128 dev lo nodad")
    try:
        statuses = json.loads(sh("python3 -c %s /limited/ %s", ASK_FROM, ",".join(there)))
        assert 0 < statuses[:-1].count(200) < 20
        assert statuses[:-1].count(429) == 40 - statuses[:-1].count(200)
        assert statuses[-1] == 200
        assert role(nginx_limits={"client_requests": 5}).ok
        statuses = json.loads(sh("python3 -c %s /kept/?slow=2 %s", ASK_FROM, ",".join(there)))
        assert (statuses[:-1].count(200), statuses[-1]) == (5, 200)
    finally:
        for address in [*there, "2001:db8:0:3::1"]:
            balancer.host.run(f"ip -6 addr flush to {address} dev lo")


def test_concurrency(balancer: Balancer) -> None:
    """What is too much for the app is told so at once, whoever sends it."""
    statuses = Counter(answer.status for answer in at_once(balancer, "/narrow/?slow=1.5", 10))
    assert statuses == {200: 3, 429: 7}
    assert balancer.ask("/narrow/").status == 200


def test_maintenance(balancer: Balancer) -> None:
    """Clients get the page, a status that search engines understand, and the headers of any answer."""
    answer = balancer.ask("/closed/any?where=1")
    assert answer.status == 503
    assert b"We are working on it" in answer.body
    assert answer.header("Content-Type") == ["text/html"]
    assert answer.header("Retry-After") == ["60"]
    assert answer.header("X-Frame-Options") == ["DENY"]
    assert balancer.ask("/kept/?status=503").header("Retry-After") == []


def test_maintenance_of_all(balancer: Balancer, role: Callable[..., Run]) -> None:
    """One switch for every app, with a page of one's own; the backends stay to be asked by a deploy."""
    assert role(nginx_maintenance={"enabled": True, "page": '<p class="x">back; soon</p>'}).ok
    answer = balancer.ask("/kept/")
    assert (answer.status, answer.body) == (503, b'<p class="x">back; soon</p>')
    assert balancer.status("/backends/kept/first")[0] == 200
