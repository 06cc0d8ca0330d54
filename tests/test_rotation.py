"""Who is out of rotation: in the configuration, by the rule of the health checks, and in the status."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def load(path: str) -> ModuleType:
    """Import a file under its own name."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.modules[name] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


LOCK = load("plugins/module_utils/host_lock.py")
NAMES = load("plugins/module_utils/nginx_names.py")
POOL = load("plugins/module_utils/nginx_pool.py")
NGINX = load("plugins/module_utils/nginx_host.py")
RULE = load("roles/health/files/health_pool.py")
CHECK = load("roles/health/files/health_check.py")
HEALTH = load("roles/health/files/nginx_health.py")
CACHE = load("plugins/module_utils/nginx_cache.py")
STATUS = load("plugins/filter/status.py")

CONFIG = """\
http {
    upstream shop {
        zone shop 128k;
        server 10.0.0.1:8080 max_fails=3 fail_timeout=5s@down:shop/a@; # a
        server [2001:db8::2]:8080 weight=2 max_fails=3 fail_timeout=5s@down:shop/b@; # b
        server 10.0.0.1:8080 max_fails=0 backup@down:shop/a@; # a
        server [2001:db8::2]:8080 weight=2 max_fails=0 backup@down:shop/b@; # b
        keepalive 16;
    }
    upstream news {
        server 10.0.0.1:8081 max_fails=3 fail_timeout=5s@down:news/a@; # a
    }
    server {
        listen unix:/run/paddock-nginx/status.sock;
        location = /generation { return 200 "@generation@"; }
    }
}
"""
POOLS = {"news": {"a": "10.0.0.1"}, "shop": {"a": "10.0.0.1", "b": "2001:db8::2"}}


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep the files of the rotation in a folder of the test."""
    monkeypatch.setattr(POOL, "ROTATION", tmp_path)
    monkeypatch.setattr(POOL, "WANTED", tmp_path / "wanted.json")
    monkeypatch.setattr(POOL, "DRAINED", tmp_path / "drained.json")
    monkeypatch.setattr(POOL, "HEALTH", tmp_path / "health.json")
    yield tmp_path


# --- the configuration


ASKED = POOL.Wanted(CONFIG, POOLS)


def test_render() -> None:
    """Both lines of a server that is out are down, and nothing else is different."""
    text, rotated = POOL.render(ASKED, set()), POOL.render(ASKED, {("shop", "b")})
    changed = [
        (old, new) for old, new in zip(text.split("\n"), rotated.split("\n"), strict=True) if old != new
    ]
    assert [new for _, new in changed] == [
        "        server [2001:db8::2]:8080 weight=2 max_fails=3 fail_timeout=5s down; # b",
        "        server [2001:db8::2]:8080 weight=2 max_fails=0 backup down; # b",
    ]
    assert "down" not in text


def test_stamp(tmp_path: Path) -> None:
    """The stamp tells texts, rotations and certificates apart, and is the same when it is made again."""
    certificate = tmp_path / "fleet.pem"
    secure = ASKED._replace(certificates=[str(certificate)])
    certificate.write_text("one")
    first, generation = NGINX.stamped(secure)
    assert f'return 200 "{generation}"' in first
    assert NGINX.stamped(secure) == (first, generation)
    POOL.remember(POOL.HEALTH, {"shop": {"a": {}}})
    stamps = {generation, NGINX.stamped(secure)[1], NGINX.stamped(ASKED)[1]}
    certificate.write_text("two")
    stamps.add(NGINX.stamped(secure)[1])
    assert len(stamps) == 4


def test_no_configuration() -> None:
    """Where no run has asked for one, Nginx is not ours to change."""
    assert POOL.wanted() == POOL.Wanted()
    with pytest.raises(POOL.Refused, match="run the playbook"):
        NGINX.stamped(POOL.wanted())


def test_what_was_asked_for_is_kept() -> None:
    """It is the same when it is read, also where a later version has written more."""
    asked = ASKED._replace(certificates=["/etc/own.pem"], addresses={"b.example.org": "10.0.0.2"})
    POOL.remember(POOL.WANTED, asked._asdict() | {"more": 1})
    assert POOL.wanted() == asked


def test_out_of_rotation() -> None:
    """By hand a backend is out with all of its apps, by health with one; others do not matter."""
    config = ASKED._replace(pools={**POOLS, "news": {"a": "10.0.0.1", "b": "10.0.0.2"}})
    POOL.remember(POOL.DRAINED, {"b": {}, "gone": {}})
    assert POOL.out_of_rotation(config) == {("shop", "b"), ("news", "b")}
    POOL.remember(POOL.DRAINED, {})
    POOL.remember(POOL.HEALTH, {"shop": {"b": {}, "gone": {}}, "gone": {"a": {}}})
    assert POOL.out_of_rotation(config) == {("shop", "b")}


@pytest.mark.parametrize(
    ("hand", "health", "out"),
    [
        ({}, {"shop": {"a": {}, "b": {}}}, set()),
        ({"b": {}}, {"shop": {"a": {}}}, {("shop", "b")}),
        ({}, {"news": {"a": {}}}, set()),
    ],
)
def test_health_never_empties_a_pool(hand: dict[str, Any], health: dict[str, Any], out: set[Any]) -> None:
    """Where it would, only the drained stay out."""
    POOL.remember(POOL.DRAINED, hand)
    POOL.remember(POOL.HEALTH, health)
    assert POOL.out_of_rotation(ASKED) == out


def test_all_drained() -> None:
    """A person is told instead."""
    POOL.refuse_empty_pools(ASKED)
    POOL.remember(POOL.DRAINED, {"a": {}})
    with pytest.raises(POOL.Refused, match=r"All backends of news .*: a\. Put one back"):
        POOL.refuse_empty_pools(ASKED)


def test_a_file_that_cannot_be_read() -> None:
    """It is named, rather than taken for an empty one: a host under repair would come back."""
    POOL.DRAINED.write_text('{"a": ')
    with pytest.raises(POOL.Refused, match=r"drained\.json cannot be read"):
        POOL.out_of_rotation(ASKED)


# --- names

NAMED = POOL.Wanted(
    """\
    upstream shop {
        server 10.0.0.1:8080@down:shop/a@; # a
        server @address:b.example.org@:8080@down:shop/b@; # b (b.example.org)
    }
    upstream acme_peers {
        server @address:lb2.example.org@:80;
    }
    server {
        location = /backends/shop/b { proxy_pass http://@address:b.example.org@:8080/readyz; }
    }
""",
    {"shop": {"a": "10.0.0.1", "b": "b.example.org"}},
)


def test_names() -> None:
    """Each name has its address in each of its places."""
    assert NAMED.names == ["b.example.org", "lb2.example.org"]
    given = NAMED._replace(addresses={"b.example.org": "2001:db8::2", "lb2.example.org": "10.0.0.3"})
    assert POOL.out_of_rotation(given) == set()
    text = POOL.render(given, {("shop", "b")})
    assert "server [2001:db8::2]:8080 down; # b (b.example.org)" in text
    assert "server 10.0.0.3:80;" in text
    assert "proxy_pass http://[2001:db8::2]:8080/readyz;" in text
    assert "@" not in text


def test_a_name_that_never_had_an_address() -> None:
    """Its backend is out of rotation, and so it stays, until it has one."""
    lost = NAMED._replace(addresses={"b.example.org": "", "lb2.example.org": "10.0.0.3"})
    assert POOL.out_of_rotation(lost) == {("shop", "b")}
    text = POOL.render(lost, POOL.out_of_rotation(lost))
    assert "server 255.255.255.255:8080 down; # b (b.example.org)" in text
    found = lost._replace(addresses={"b.example.org": "10.0.0.2", "lb2.example.org": "10.0.0.3"})
    assert POOL.out_of_rotation(found) == set()
    # Health checks do not take out the one that is left.
    POOL.remember(POOL.HEALTH, {"shop": {"a": {}}})
    assert POOL.out_of_rotation(lost) == {("shop", "b")}


def test_look_up() -> None:
    """An address that is still right stays; a name that is lost has the one that it had."""
    found = NAMES.look_up(["localhost", "lost.invalid", "new.invalid"], {"lost.invalid": "10.0.0.9"})
    assert found["localhost"].address in ("127.0.0.1", "::1")
    assert found["localhost"].problem == ""
    assert found["lost.invalid"].address == "10.0.0.9"
    assert found["new.invalid"].address == ""
    assert all(found[name].problem.startswith(name) for name in ("lost.invalid", "new.invalid"))
    for address in {found["localhost"].address, "127.0.0.1"}:
        assert NAMES.look_up(["localhost"], {"localhost": address})["localhost"].address == address


# --- the rule


def pool(*names: str) -> Any:
    """Return a pool: two bad answers and out, two good ones and back."""
    return RULE.Pool(names, 2, 2)


def answer(members: Any, now: float, **well: bool) -> None:
    """Give each backend an answer."""
    for name, good in well.items():
        members.observe(name, None if good else RULE.Fault("is unhealthy"), now)


def test_rise_and_fall() -> None:
    """One bad answer is none, and one good one is no recovery."""
    members, out = pool("a", "b"), set()
    seen = []
    for now, good in enumerate([True, False, True, False, False, True, False, True, True, False]):
        answer(members, now, a=good, b=True)
        out = members.verdict(out, (), now)
        seen.append(out == {"a"})
    assert seen == [False, False, False, False, True, True, True, True, False, False]


def test_a_new_one_changes_nothing() -> None:
    """Who begins to watch keeps who is out until they have answered twice."""
    members = pool("a", "b")
    assert members.verdict({"a"}, (), 0) == {"a"}
    answer(members, 1, a=True)
    assert members.verdict({"a"}, (), 1) == {"a"}
    answer(members, 2, a=True)
    assert members.verdict({"a"}, (), 2) == set()


@pytest.mark.parametrize(
    ("size", "by_hand", "out"), [(1, 0, 0), (2, 0, 1), (3, 0, 1), (4, 0, 2), (5, 0, 2), (5, 1, 1), (5, 3, 0)]
)
def test_half(size: int, by_hand: int, out: int) -> None:
    """When all are unhealthy, half leaves, rounded down; the drained count."""
    names = [f"b{number}" for number in range(size)]
    members = pool(*names)
    for now in (1, 2, 3):
        answer(members, now, **dict.fromkeys(names, False))
    hand = names[:by_hand]
    found = members.verdict((), hand, 3)
    assert len(found) == out
    assert not found & set(hand)


@pytest.mark.parametrize(("fault", "leave"), [("slow", 0), ("dead", 1)])
def test_a_load_for_all(fault: str, leave: int) -> None:
    """Where most are slow none leaves, for the others would have to carry more; the dead do leave."""
    pool = RULE.Pool("abc", fall=2, rise=2)
    says = RULE.Fault("does not answer", silent=True, slow=fault == "slow")
    for backend in "ab":
        for moment in (1.0, 2.0):
            pool.observe(backend, says, moment)
    pool.observe("c", None, 2.0)
    assert len(pool.verdict((), (), 2.0)) == leave
    pool.observe("b", None, 3.0)
    assert len(pool.verdict((), (), 3.0)) == leave
    pool.observe("a", says, 8.0)
    assert pool.verdict((), (), 8.0) == {"a"}


def test_the_longest_ill_leave_first() -> None:
    """And one who recovers makes room for the next."""
    members = pool("a", "b", "c", "d", "e")
    answer(members, 1, a=True, b=True, c=True, d=True, e=True)
    answer(members, 2, a=True, b=True, c=False, d=False, e=True)
    answer(members, 3, a=False, b=True, c=False, d=False, e=True)
    answer(members, 4, a=False, b=True, c=False, d=False, e=True)
    out = members.verdict((), (), 4)
    assert out == {"c", "d"}
    answer(members, 5, a=False, b=True, c=True, d=False, e=True)
    answer(members, 6, a=False, b=True, c=True, d=False, e=True)
    assert members.verdict(out, (), 6) == {"a", "d"}


def test_flapping() -> None:
    """Each return takes twice the good answers of the last; they are forgotten after a while."""
    members = pool("a", "b")
    needed = []
    for now in range(8):
        needed.append(members.checks_to_return("a", now))
        members.returned("a", now)
    assert needed == [2, 4, 8, 16, 32, 64, 128, 128]
    assert members.checks_to_return("a", 1300) == 2


def test_flapping_for_ever() -> None:
    """An app that is unhealthy each half minute costs the others few reloads an hour."""
    members, out, reloads = pool("a", "b"), set(), 0
    for now in range(3600):
        answer(members, now, a=now % 30 > 5, b=True)
        wanted = members.verdict(out, (), now)
        for backend in out - wanted:
            members.returned(backend, now)
        reloads += wanted != out
        out = wanted
    assert reloads < 30


@pytest.mark.parametrize(
    "line",
    [b"HTTP/1.1 200\x1b]0;owned\x07 OK", b"HTTP/1.1 \x1b[2J500 no", b"HTTP/1.1 5000", b"HTTP/1.1 20\xb2"],
)
def test_what_an_app_says_to_a_terminal(line: bytes) -> None:
    """Nothing but a status becomes words of ours."""

    async def ask() -> Any:
        async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(line + b"\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            return await CHECK.Target("shop", "a", "127.0.0.1", port, "/", "localhost").ask(2)

    assert asyncio.run(ask()).says == "does not speak HTTP"


def test_a_lock_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root may open it, also where an older one let others; who holds it is named, after a while."""
    path = POOL.ROTATION / ".lock"
    path.touch(mode=0o644)
    monkeypatch.setattr(POOL, "LOCK_SECONDS", 1)
    with POOL.alone():
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(POOL.Refused, match=rf"for more than 1 s by process {os.getpid()} \(.*python"):
            POOL.alone().__enter__()
    with POOL.alone():
        POOL.remember(POOL.DRAINED, {})
    assert POOL.DRAINED.stat().st_mode & 0o777 == 0o600


def test_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A purge is of an app's files alone, wherever a link in its folder leads."""
    monkeypatch.setattr(CACHE, "CACHES", tmp_path)
    for name in ("cache-shop/a/bc/1", "cache-shop/a/bc/2", "cache-shopping/a/bc/3", "other/4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "cache-shop/b").symlink_to(tmp_path / "other")
    assert CACHE.purge(["shop", "none"], dry=True) == ["shop"]
    assert CACHE.purge(["shop", "none"]) == ["shop"]
    assert CACHE.purge(["shop", "none"]) == []
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["3", "4"]
    CACHE.remove_caches(f"proxy_cache_path {tmp_path}/cache-shop levels=1:2;")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["cache-shop", "other"]


def test_any_history() -> None:
    """Whatever happens, no more than half is out by health, and none leaves or returns without cause."""
    chance = random.Random(1)
    for size in range(1, 7):
        names = [f"b{number}" for number in range(size)]
        members, out = pool(*names), set()
        for now in range(500):
            good = {name: chance.random() < 0.5 for name in names}
            answer(members, now, **good)
            before, out = out, members.verdict(out, (), now)
            assert len(out) <= size // 2
            assert all(not good[name] for name in out - before)
            assert all(good[name] for name in before - out)


def test_reloads_get_rarer() -> None:
    """However often backends come and go, Nginx is reloaded about a score of times a minute at most."""
    health = HEALTH.Health({"interval": 1, "timeout": 1, "fall": 2, "rise": 2, "apps": {}})
    now, count = 0.0, 0
    while now < 600:
        health.reloads.append(now)
        count += 1
        now += health.pause(now)
    assert count < 200
    assert health.pause(now + 60) == 1


# --- the status


def listed(**rotation: dict[str, Any]) -> dict[str, Any]:
    """Return what a balancer says."""
    return {
        "nginx_listed": {
            "apps": {"shop": {"a": {"out": ""}, "b": {"out": ""}, **rotation}},
            "generation": "0f3a9c77d2b1",
            "current": True,
            "health": True,
            "certificates": {"/etc/paddock/tls/fleet.pem": "2027-01-01 00:00:00Z"},
        }
    }


def serving(release: str) -> dict[str, Any]:
    """Return what a backend says."""
    marks = [{"release": release, "good": 1.0, "bad": None}, {"release": "old", "good": None, "bad": "why"}]
    return {"gunicorn_listed": {"apps": {"shop": {"now": release, "slot": "blue", "releases": marks}}}}


SILENT = {"unreachable": True, "msg": "timed out"}


def table(hostvars: dict[str, Any], balancers: list[str]) -> list[str]:
    """Return the lines of the tables."""
    status = STATUS.fleet_status(hostvars, ["a", "b"], balancers)
    return [" ".join(line.split()) for line in STATUS.fleet_status_table(status).splitlines()]


def test_status() -> None:
    """A line for each app of each host, and one for each balancer."""
    why = {"out": "drained", "why": "disk", "by": "me@here", "since": "2026-01-01 00:00:00 UTC"}
    assert table({"a": serving("one"), "b": serving("two"), "lb": listed(b=why)}, ["lb"]) == [
        "app host release slot mark rotation why",
        "shop a one blue good in",
        "shop b two blue good drained disk, me@here, since 2026-01-01 00:00:00 UTC",
        "",
        "balancer generation health checks certificates",
        "lb 0f3a9c77d2b1 on /etc/paddock/tls/fleet.pem until 2027-01-01 00:00:00Z",
    ]


def test_status_of_lost_names() -> None:
    """One that never had an address is out by its name; one that has only its last one is in, with a note."""
    out = {"out": "unresolved", "why": "a.example.org is not in DNS"}
    doubt = {"out": "", "why": "b.example.org is not in DNS; its last address is 10.0.0.2"}
    lines = table({"a": serving("one"), "b": serving("one"), "lb": listed(a=out, b=doubt)}, ["lb"])
    assert lines[1] == "shop a one blue good unresolved a.example.org is not in DNS"
    assert lines[2].endswith("good in b.example.org is not in DNS; its last address is 10.0.0.2")


def test_status_of_two_balancers() -> None:
    """Where they do not agree, it says on which one is out; what does not run as its file says is told."""
    unhealthy = {"out": "unhealthy", "why": "it answers 500", "since": "2026-01-01 00:00:00 UTC"}
    other = listed(a=unhealthy)
    other["nginx_listed"] |= {"current": False, "health": False, "certificates": {}}
    lines = table({"a": serving("one"), "b": serving("one"), "lb1": listed(), "lb2": other}, ["lb1", "lb2"])
    assert "shop a one blue good unhealthy on lb2 it answers 500, since 2026-01-01 00:00:00 UTC" in lines
    assert lines[-1] == "lb2 0f3a9c77d2b1 (its file says other) off -"


def test_status_of_the_dead() -> None:
    """Hosts that do not answer are rows that say so, whoever still answers."""
    dead = {"gunicorn_listed": SILENT}
    assert (
        table({"a": serving("one"), "b": dead, "lb": listed()}, ["lb"])[2]
        == "shop b - - - in does not answer"
    )
    lines = table({"a": dead, "b": dead, "lb": {"nginx_listed": SILENT}}, ["lb"])
    assert lines[1:3] == ["- a - - - - does not answer", "- b - - - - does not answer"]
    assert lines[-1] == "lb - - does not answer"
