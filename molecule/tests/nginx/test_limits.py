"""What an app may ask the balancer to keep, to limit and to say in its place."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex

import pytest
from balancer import Answer, Balancer, Run

testinfra_hosts = ["ansible://balancers"]


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
        ("GET", {}, "&status=500"),
    ],
    ids=["cookie", "login", "post", "new-cookie", "private", "error"],
)
def test_never_from_the_cache(balancer: Balancer, method: str, headers: dict[str, str], query: str) -> None:
    """What may be one person's, or wrong, is neither kept nor answered to the next."""
    mark = token_hex()
    path = f"/cached/?mark={mark}{query}"
    for _ in range(3):
        balancer.ask(path, method, headers=headers)
    assert tries(balancer, mark) == 3


def test_rate(balancer: Balancer) -> None:
    """More than the limit and its burst get 429, and no backend sees them; other apps do not mind."""
    mark = token_hex()
    statuses = Counter(answer.status for answer in at_once(balancer, f"/limited/?mark={mark}", 40))
    assert statuses.keys() == {200, 429}
    assert statuses[200] == tries(balancer, mark) < 20
    assert {answer.status for answer in at_once(balancer, "/kept/", 40)} == {200}


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
    assert role(nginx_maintenance=True, nginx_maintenance_page='<p class="x">back; soon</p>').ok
    answer = balancer.ask("/kept/")
    assert (answer.status, answer.body) == (503, b'<p class="x">back; soon</p>')
    url = "http://127.0.0.1:8099/backends/kept/first"
    balancer.host.check_output(f"python3 -c \"import urllib.request as r; r.urlopen('{url}')\"")
