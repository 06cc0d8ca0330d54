"""Backends that are not well leave the pool and come back, whatever happens to the one who watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from balancer import Balancer
from testbed import sample
from watched import NAMES, Watched

testinfra_hosts = ["ansible://balancers"]


@pytest.fixture(autouse=True)
def well(watched: Watched) -> Iterator[None]:
    """All are well before a test, and after it."""
    watched.start()
    watched.await_serving(NAMES)
    yield
    watched.start()


ILLNESSES: dict[str, Callable[[Watched], None]] = {
    "refuses": lambda watched: watched.stop("w2"),
    "hangs": lambda watched: watched.freeze("w2"),
    "answers 500": lambda watched: watched.health("w2", 500),
    "redirects": lambda watched: watched.health("w2", 302),
}


@pytest.mark.parametrize("illness", sample(ILLNESSES.values(), 2))
def test_out_and_back(watched: Watched, illness: Callable[[Watched], None]) -> None:
    """An unhealthy one gets no requests until it is healthy."""
    illness(watched)
    watched.await_out("w2")
    watched.await_serving({"w1", "w3", "w4"})
    entry = watched.out()["w2"]
    assert entry["since"].endswith("UTC")
    assert f"watched on w2 is out: {entry['why']}" in watched.log()
    watched.start("w2")
    watched.await_serving(NAMES)
    assert watched.out() == {}
    assert "watched on w2 is back" in watched.log()


def test_it_asks_as_clients_would(watched: Watched) -> None:
    """An app that sends plain requests to TLS answers its health."""
    (line,) = watched.sh("grep -F paddock-health /var/log/upstream.log | tail -1").splitlines()
    assert '["X-Forwarded-Proto", "https"]' in line


def test_requests_that_hang_are_answered_by_others(watched: Watched) -> None:
    """Connections to a frozen backend are cut, so its GETs move on long before a time limit."""
    watched.freeze("w3")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(watched.balancer.ask, ["/watched/"] * 16))
    assert {answer.status for answer in answers} == {200}


def test_requests_of_one_that_answers_are_not_cut(watched: Watched) -> None:
    """One that says that it is unhealthy may finish what it has."""
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(watched.balancer.ask, "/watched/?slow=9", "POST") for _ in range(8)]
        time.sleep(1)
        watched.health("w1", 500)
        watched.await_serving({"w2", "w3", "w4"})
        assert {one.result().status for one in slow} == {200}


def test_never_more_than_half(watched: Watched) -> None:
    """When many are unhealthy, half of the pool stays: it may still be better than none."""
    for name in NAMES:
        watched.health(name, 500)
    deadline = time.monotonic() + 60
    while "of 4 no more than 2 may be out" not in watched.log():
        assert time.monotonic() < deadline
        time.sleep(0.5)
    time.sleep(3)
    assert len(watched.out()) == 2
    assert watched.serving() == set(NAMES) - set(watched.out())


@pytest.mark.full
def test_a_unit_that_was_edited(watched: Watched) -> None:
    """The file is as described again and the service runs with it; a second run does nothing."""
    unit, start = "/etc/systemd/system/nginx-health.service", "systemctl show -P InvocationID nginx-health"
    before, text = watched.sh(start), watched.sh(f"cat {unit}")
    watched.sh(f"echo '# edited' >> {unit}; sleep 1.1")
    dry = watched.play("molecule/nginx/converge.yml", "--check", "--diff")
    assert (dry.ok, dry.changed) == (True, 1), dry.output
    assert "-# edited" in dry.output
    assert watched.sh(start) == before
    run = watched.play()
    assert (run.ok, run.changed) == (True, 1), run.output
    assert watched.sh(f"cat {unit}") == text
    assert watched.sh(start) != before
    assert watched.play().changed == 0


def test_killed(watched: Watched) -> None:
    """The death of the one who watches changes nothing, and the next one goes on from there."""
    watched.health("w4", 500)
    watched.await_serving({"w1", "w2", "w3"})
    before, out = watched.balancer.state(), watched.out()
    restarts = "systemctl show --property=NRestarts --value nginx-health"
    count = int(watched.sh(restarts))
    watched.sh("systemctl kill -s KILL nginx-health")
    watched.sh(f"timeout 30 sh -c 'until [ $({restarts}) -gt {count} ]; do sleep 0.2; done'")
    time.sleep(3)
    assert watched.sh("systemctl is-active nginx-health") == "active"
    assert watched.balancer.state() == before
    assert watched.out() == out
    watched.start("w4")
    watched.await_serving(NAMES)


def test_stopped_nginx_stays_stopped(watched: Watched) -> None:
    """A Nginx that was stopped is not started by an unhealthy backend; it starts with what is right."""
    watched.sh("systemctl stop nginx")
    watched.health("w1", 500)
    watched.sh("timeout 30 sh -c 'until grep -q down /etc/nginx/nginx.conf; do sleep 0.2; done'")
    assert not watched.balancer.host.service("nginx").is_running
    watched.sh("systemctl start nginx")
    watched.await_serving({"w2", "w3", "w4"})


def test_a_run_keeps_who_is_out(watched: Watched) -> None:
    """The role neither brings back an unhealthy backend nor sees a change in it, also in a dry run."""
    watched.freeze("w2")
    watched.await_serving({"w1", "w3", "w4"})
    before = watched.balancer.state()
    for options in ([], ["--check", "--diff"]):
        run = watched.play("molecule/nginx/converge.yml", *options)
        assert (run.ok, run.changed) == (True, 0), run.output
    assert watched.balancer.state() == before


@pytest.mark.full
def test_who_left_the_inventory(watched: Watched) -> None:
    """Nothing is remembered of a backend that is gone, and it joins again when it is back."""
    watched.health("w2", 500)
    watched.await_serving({"w1", "w3", "w4"})
    assert watched.play(__fleet_backends=["w1", "w3", "w4"]).ok
    watched.sh(
        "timeout 30 sh -c 'while grep -q w2 /var/lib/paddock/rotation/health.json; do sleep 0.2; done'"
    )
    watched.start("w2")
    assert watched.play().ok
    watched.await_serving(NAMES)


def test_switched_off(watched: Watched) -> None:
    """Without health checks nothing of them is left, and who was out is back; and the way back works."""
    watched.health("w2", 500)
    watched.await_serving({"w1", "w3", "w4"})
    check = watched.play("molecule/nginx/converge.yml", "--check", health_enabled=False)
    assert check.ok, check.output
    assert watched.play(health_enabled=False).ok
    watched.await_serving(NAMES)
    assert not watched.balancer.host.service("nginx-health").is_running
    folders = "/etc/systemd/system /etc/paddock /usr/local/lib/paddock /var/lib/paddock/rotation"
    assert watched.sh(f"find {folders} -name '*health*'") == ""
    again = watched.play(health_enabled=False)
    assert (again.ok, again.changed) == (True, 0), again.output
    assert watched.play().ok
    watched.await_serving({"w1", "w3", "w4"})


def test_sandbox(balancer: Balancer) -> None:
    """Of what systemd can take from a service, the health checks keep only what they need."""
    balancer.host.check_output("systemd-analyze security --threshold=25 nginx-health.service")
