"""What clients notice of backends that fail: as little as possible, and nothing is done twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from balancer import FIRST, SECOND, Balancer

testinfra_hosts = ["ansible://balancers"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_refused_connection(balancer: Balancer, method: str) -> None:
    """A backend that refuses got nothing, so any request may go to another."""
    answers = [balancer.ask("/half/", method) for _ in range(8)]
    assert [(answer.status, answer.received.host) for answer in answers] == [(200, FIRST)] * 8


def test_no_backend_left(balancer: Balancer) -> None:
    """The client is told at once, not after a time limit."""
    answer = balancer.ask("/dead/")
    assert answer.status == 502
    assert float(balancer.logged("id", answer.id)["seconds"]) < 1


@pytest.mark.parametrize("path", ["/stripped/", "/sticky/"])
@pytest.mark.parametrize(("broken", "sound"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_get_is_tried_elsewhere(balancer: Balancer, path: str, broken: str, sound: str) -> None:
    """A GET that one backend drops is answered by the other."""
    answers = [balancer.ask(f"{path}?close={broken}") for _ in range(2)]
    assert [(answer.status, answer.received.host) for answer in answers] == [(200, sound)] * 2


def test_post_is_sent_once(balancer: Balancer) -> None:
    """A POST that a backend has received may have worked, so no other gets it."""
    answers = [balancer.ask(f"/small/?close={SECOND}", "POST", b"order") for _ in range(4)]
    assert {answer.status for answer in answers} == {200, 502}
    assert [len(balancer.arrived(answer.id)) for answer in answers] == [1] * 4


def test_an_error_of_the_app_is_an_answer(balancer: Balancer) -> None:
    """An app's 503 reaches the client as it is; no other backend is asked."""
    answers = [balancer.ask("/kept/?status=503") for _ in range(8)]
    assert {answer.status for answer in answers} == {503}
    assert [len(balancer.arrived(answer.id)) for answer in answers] == [1] * 8
    # The backends do not count as failed for it.
    assert {balancer.ask("/kept/").received.host for _ in range(2)} == {FIRST, SECOND}


def test_slow_requests_take_nothing_down(balancer: Balancer) -> None:
    """Requests slower than the read timeout fail alone: not tried again, and the others are served."""
    with ThreadPoolExecutor(8) as pool:
        slow = list(pool.map(lambda _: balancer.ask("/small/?slow=8"), range(8)))
    others = [balancer.ask("/small/") for _ in range(12)]
    assert [answer.status for answer in others] == [200] * 12
    assert [answer.status for answer in slow] == [504] * 8
    assert [len(balancer.arrived(answer.id)) for answer in slow] == [1] * 8
