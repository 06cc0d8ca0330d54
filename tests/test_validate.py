"""The validation: each bad input is refused with file, key, value and what is allowed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from ansible_collections.paddock.fleet.plugins.filter.complete_apps import complete_apps
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.apps import (
    check_apps,
    check_schema,
    sound_apps,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.hosts import (
    Host,
    check_group,
    check_hosts,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.nginx import check_nginx
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.problem import (
    BROKEN,
    did_you_mean,
    show,
    show_path,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.roles import (
    FLEET_VARIABLES,
    RENAMED,
    check_option,
    is_foreign,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.sources import (
    check_entrypoint,
    check_lock,
)

ROOT = Path(__file__).parents[1]
FLEET = Path(__file__).parent / "fixtures" / "fleet"

SCHEMA = json.loads((ROOT / "plugins/plugin_utils/fleet_rules/apps.schema.json").read_text())
HOST_NAME = SCHEMA["$defs"]["app"]["properties"]["server_names"]["items"]["pattern"]
APPS_FILE = "inventory/group_vars/all/apps.yml"


# --- Rules, without Ansible ----------------------------------------------------------------------


def app(name: str = "shop", port: object = 8080, **more: object) -> dict[str, Any]:
    """Return a good app, with the given keys changed."""
    path = f"/{name}/" if re.fullmatch("[a-z]+", str(name)) else "/"
    return {"name": name, "framework": "flask", "port": port, "routes": [{"path": path}], **more}


def check(*apps: object) -> list[str]:
    """Return what the rules say about a list of apps."""
    problems = list(check_schema({"apps": list(apps)}, SCHEMA))
    sound = complete_apps(sound_apps(list(apps), problems))
    return [problem.text for problem in [*problems, *check_apps(sound)] if problem.text]


def test_good_apps() -> None:
    """The rules have nothing against good apps, all keys used."""
    full = app(
        server_names=["www.example.org", "a.b-c.d1"],
        entrypoint="shop.wsgi:create_app()",
        workers="auto",
        threads=1,
        timeout=3600,
        balance="random",
        health_path="/health/ready",
        body_size="1g",
        network="none",
        environment={"A": "'\"%\n$\\" + "x" * 65536, "_b": ""},
        routes=[{"path": "/", "to": "/x/"}, {"path": "/a", "exact": True, "to": "/b"}],
    )
    assert check(full, app("live", 8081, framework="tornado", workers=128)) == []


NAME = "a lower-case letter, then up to 30"
PORT = "a whole number from 1024 to 65535"
HOST = "a host name such as www.example.org"
WHOLE = "a whole number from 1 to 128"


TAKEN_VARIABLES = [
    *("APP_RELEASE", "PADDOCK_STATUS", "LISTEN_FDS", "NOTIFY_SOCKET", "WATCHDOG_USEC", "STATE_DIRECTORY"),
    *("RUNTIME_DIRECTORY", "CACHE_DIRECTORY", "GUNICORN_CMD_ARGS", "GUNICORN_PID", "PYTHONHOME"),
]


@pytest.mark.parametrize(
    ("change", "key", "value", "allowed"),
    [
        # B5
        *(
            ({"port": port}, "apps[0].port", json.dumps(port), PORT)
            for port in [0, 70000, "80a", -1, 80, 8080.0, True, None, "8080"]
        ),
        # B8
        ({"framework": "djnago"}, "apps[0].framework", '"djnago"', "flask, tornado"),
        # B12
        *(
            ({"name": name}, "apps[0].name", show(name), NAME)
            for name in [
                *("a/b", "a b", "..", "a;b", "shop\n", "a" * 60, ".shop", "-shop", "shöp"),
                *("Shop", "", "1shop", "shop-", "shop-blue", 7),
            ]
        ),
        *(
            ({"name": name}, "apps[0].name", f'"{name}"', "a name that is no user or unit")
            for name in [
                "root",
                "www-data",
                "nginx",
                "systemd",
                "nftables",
                "tls",
                "acme",
                "rotation",
                "nginx-health",
            ]
        ),
        # B13
        *(
            ({"server_names": [name]}, "apps[0].server_names[0]", show(name), HOST)
            for name in [
                *("a;b", "a{b", "$host", "a.org\n", "~^www", "*", "*.a.org", "a..b", "-a", "a_b"),
                *("", "a b", "a/", "a" * 64, ".a", "a.", "ä.org", 'a"b', "a#b", 5),
            ]
        ),
        (
            {"server_names": ["a.org", "a.org"]},
            "apps[0].server_names",
            '["a.org", "a.org"]',
            "a list of host names such as www.example.org (letters, digits, dashes and dots), each once",
        ),
        ({"server_names": "a.org"}, "apps[0].server_names", '"a.org"', "a list of host names"),
        # B14: values of the environment are never shown
        *(
            ({"environment": {"KEY": value}}, "apps[0].environment.KEY", shown, "a string without")
            for value, shown in [
                ("s3cret\0", "a string (not shown)"),
                (12345, "a number (not shown)"),
                (True, "true or false (not shown)"),
                (None, "null"),
                (["s3cret"], "a list"),
            ]
        ),
        ({"environment": "s3cret"}, "apps[0].environment", "a string (not shown)", "a mapping of"),
        *(
            ({"environment": {name: "x"}}, "a key of apps[0].environment", show(name), "letters")
            for name in ["1A", "A-B", "A\n", "APP_NAME", "A=B", "", 1, True, *TAKEN_VARIABLES]
        ),
        # B15
        *(
            ({"workers": workers}, "apps[0].workers", json.dumps(workers), f"{WHOLE}, or auto")
            for workers in [0, -1, 10000, "many", "4", 1.5, True]
        ),
        *(
            ({"threads": threads}, "apps[0].threads", json.dumps(threads), WHOLE)
            for threads in [0, 129, "auto"]
        ),
        ({"timeout": 0}, "apps[0].timeout", "0", "a whole number of seconds from 1 to 3600"),
        ({"balance": "fair"}, "apps[0].balance", '"fair"', "round_robin, least_conn"),
        # B17
        *(
            ({"body_size": size}, "apps[0].body_size", show(size), "a number with the unit k, m")
            for size in ["10mb", "10M", "10", 10, "0m", "10m\n", "10m;"]
        ),
        # B22
        *(
            ({"health_path": path}, "apps[0].health_path", show(path), "a path that starts with /")
            for path in ["readyz", "", "http://a/", "/a b", "/a;", "/a\n", "/$uri", "/a?b"]
        ),
        *(
            ({"entrypoint": entry}, "apps[0].entrypoint", show(entry), "module:object such as")
            for entry in ["app", "app:app(1)", "app:app\n", "a-b:app", "app:app --x"]
        ),
        # Routes
        *(
            ({"routes": [{"path": path}]}, "apps[0].routes[0].path", show(path), "a path that")
            for path in ["a", "/a b/", "/a\n", "/{", "/a;/", "/a", "~ ^/"]
        ),
        *(
            ({"routes": [{"path": path}]}, "apps[0].routes[0].path", show(path), "a path without")
            for path in ["/a//b/", "/../", "/a/../", "/./", "/a/./b/", "/.."]
        ),
        (
            {"routes": [{"path": "/a/", "to": "/b"}]},
            "apps[0].routes[0].to",
            '"/b"',
            "a path that ends in /, unless the route says exact: true",
        ),
        (
            {"routes": [{"path": "/a", "exact": True, "to": "/b//c"}]},
            "apps[0].routes[0].to",
            '"/b//c"',
            "a path without //, /./ and /../",
        ),
        (
            {"routes": [{"path": "/", "exact": "yes"}]},
            "apps[0].routes[0].exact",
            '"yes"',
            "true or false",
        ),
        ({"routes": []}, "apps[0].routes", "[]", "a list of routes, at least one"),
        ({"routes": ["/"]}, "apps[0].routes[0]", '"/"', "a mapping of a route's keys"),
        (
            {"routes": [{"path": "/a/"}, {"path": "/a/"}]},
            "apps[0].routes[1].path",
            '"/a/"',
            "a path that no other route has (apps[0].routes[0] of shop and this one of shop",
        ),
    ],
)
def test_bad_app(change: dict[str, Any], key: str, value: str, allowed: str) -> None:
    """Exactly one problem, with key, value and what is allowed."""
    [text] = check(app(**change))
    assert text.startswith(f"{key} is {value}; allowed: {allowed}")
    assert "\n" not in text
    assert "s3cret" not in text


def test_good_edges() -> None:
    """Values at the edge of what is allowed pass."""
    for change in [
        {"port": 1024},
        {"port": 65535},
        {"name": "a" * 31},
        {"server_names": ["a" * 63 + ".org", "localhost", "xn--bcher-kva.example"]},
        {"workers": 1},
        {"workers": "auto"},
        {"body_size": "1k"},
        {"health_path": "/"},
        {"routes": [{"path": "/a/"}, {"path": "/a/", "exact": True}]},
        {"routes": [{"path": "/.well-known/"}, {"path": "/a..b/"}]},
    ]:
        assert check(app(**change)) == [], change


def test_fuzzed_server_names() -> None:
    """No random string gets through that could close a directive of Nginx."""
    rng = random.Random(13)
    alphabet = "ab1.-;{}$*~\"'\\\n\r\t #_/:\0é"
    names = {"".join(rng.choices(alphabet, k=rng.randint(1, 6))) for _ in range(2000)}
    names |= {"".join(rng.choices("ab1.-", k=rng.randint(1, 8))) for _ in range(200)}
    passed = {name for name in names if not check(app(server_names=[name]))}
    assert len(passed) > 30
    assert all(re.fullmatch(r"[a-z0-9]+([.-]+[a-z0-9]+)*", name) for name in passed)
    assert not any(".." in name or ".-" in name or "-." in name for name in passed)


def test_missing_and_unknown_keys() -> None:
    """A key that is missing or mistyped is named; the value of a mistyped one is not shown."""
    unknown, *missing = check({"nmae": "shop", "framework": "flask", "port": 8080})
    assert unknown.startswith("apps[0].nmae is unknown; allowed: name, framework, port, routes, ")
    assert unknown.endswith(" (did you mean name?)")
    assert missing == check({"framework": "flask", "port": 8080})
    assert {text.partition(";")[0] for text in check({"framework": "flask", "port": 8080})} == {
        "apps[0].name is missing",
        "apps[0].routes is missing",
    }
    [text] = check(app(enviroment={"TOKEN": "s3cret"}))
    assert "(did you mean environment?)" in text
    assert "s3cret" not in text
    [text] = check(app(routes=[{"path": "/", "websockets": True}]))
    assert text.startswith("apps[0].routes[0].websockets is unknown; allowed: path, exact, to, web")
    [text] = [problem.text for problem in check_schema({}, SCHEMA)]
    assert text == "apps is missing; allowed: a list of apps, at least one"


@pytest.mark.parametrize("value", [None, "shop", {}, {"name": "s3cret"}, [], 3])
def test_apps_is_no_list(value: object) -> None:
    """Whatever the variable is, there is a line and no traceback."""
    [problem] = check_schema({"apps": value}, SCHEMA)
    assert problem.text == f"apps is {show(value)}; allowed: a list of apps, at least one"
    assert sound_apps(value, [problem]) == []
    assert "s3cret" not in problem.text


def test_two_apps_with_one_name_or_port() -> None:
    """B6: both apps are named."""
    [text] = check(app("shop"), app("live"))
    assert text == (
        "apps[1].port is 8080; allowed: a port that no other app has (apps[0] shop and apps[1] live share it)"
    )
    texts = check(app("shop"), app("shop", 8081, routes=[{"path": "/b/"}]))
    assert texts == [
        'apps[1].name is "shop"; allowed: a name that no other app has'
        " (apps[0] shop and apps[1] shop share it)"
    ]


def test_two_apps_with_one_path() -> None:
    """A path belongs to one app for each list of host names."""
    one, two = app("one"), app("two", 8081, routes=[{"path": "/one/"}])
    [text] = check(one, two)
    assert text.startswith('apps[1].routes[0].path is "/one/"; allowed: a path that no other route')
    assert "of one and this one of two" in text
    assert check({**one, "server_names": ["a.org"]}, two) == []
    assert check({**one, "server_names": ["a.org"]}, {**two, "server_names": ["b.org"]}) == []


def test_apps_that_share_a_host_name() -> None:
    """A host name has one list of host names."""
    names = ["a.org", "b.org"]
    one, two = app("one", server_names=names), app("two", 8081, server_names=["B.org"])
    [text] = check(one, two)
    assert text == (
        'apps[1].server_names is ["B.org"]; allowed: the same list for one and two, because both have b.org'
    )
    assert check(one, {**two, "server_names": names[::-1]}) == []


def test_one_bad_key_hides_nothing() -> None:
    """All problems are found at once, also where another key of the same app is wrong."""
    texts = check(app("shop", body_size="10mb", routes=[{"path": 3}, {"path": "/x"}]), "live", app("nginx"))
    assert {text.partition(";")[0] for text in texts} == {
        'apps[0].body_size is "10mb"',
        "apps[0].routes[0].path is 3",
        'apps[0].routes[1].path is "/x"',
        'apps[1] is "live"',
        "apps[2].port is 8080",
        'apps[2].name is "nginx"',
    }


# --- Groups and hosts ----------------------------------------------------------------------------


def host(name: str, address: object = None, **values: object) -> Host:
    """Return a host with one app on 8080."""
    apps = complete_apps([app()])
    defaults = {"nginx_port": 80, "gunicorn_limits": {"keepalive": 75}}
    return Host(name, {**defaults, "fleet_address": address or name, **values}, apps)


def check_fleet(backends: list[Host], balancers: list[Host]) -> list[str]:
    """Return what the rules say about hosts."""
    found = [*check_hosts(backends, balancers, HOST_NAME), *check_nginx(backends, balancers)]
    return [problem.text for problem in found]


PAIR = ("10.0.0.1", "10.0.0.2")


def pair(virtual: object, *addresses: str, **values: object) -> list[str]:
    """Return what the rules say about balancers that share an address."""
    hosts = [
        host(f"lb{number}", address, balancer_virtual_ip=virtual, **values)
        for number, address in enumerate(addresses or PAIR, 1)
    ]
    return check_fleet([host("b1", "10.0.0.9")], hosts)


@pytest.mark.parametrize(
    ("virtual", "addresses", "allowed"),
    [
        ("10.0.0.5/24", PAIR, "an IPv4 or an IPv6 address without a prefix"),
        ("www.example.org", PAIR, "an IPv4 or an IPv6 address without a prefix"),
        ("127.0.0.2", PAIR, "an IPv4 or an IPv6 address without a prefix"),
        ("fe80::5", PAIR, "an IPv4 or an IPv6 address without a prefix"),
        ("10.0.0.5", ("10.0.0.1",), "empty where there is one balancer"),
        ("10.0.0.2", PAIR, "an address that no host has (lb2 has it)"),
        ("10.0.0.9", PAIR, "an address that no host has (b1 has it)"),
        ("10.0.0.5", ("lb1.example.org", "10.0.0.2"), "an address of the version that fleet_address has"),
        ("2001:db8::5", PAIR, "an address of the version that fleet_address has"),
    ],
)
def test_virtual_ip(virtual: str, addresses: tuple[str, ...], allowed: str) -> None:
    """An address of its own, that keepalived can move between two balancers."""
    assert any(allowed in text and f'is "{virtual}"' in text for text in pair(virtual, *addresses))


def test_good_virtual_ip() -> None:
    """Of either version, or none; and the same for both."""
    assert pair("10.0.0.5") == pair("") == pair("2001:db8::5", "2001:db8::1", "2001:db8::2") == []
    [text] = check_fleet(
        [host("b1", "10.0.0.9")],
        [host("lb1", "10.0.0.1", balancer_virtual_ip="10.0.0.5"), host("lb2", "10.0.0.2")],
    )
    assert text.startswith("balancer_virtual_ip of lb2 is")


def test_sources() -> None:
    """A balancer's addresses are a list of addresses."""
    assert pair("", fleet_sources=["10.0.0.1", "2001:db8::1", "lb.example.org"]) == []
    texts = [*pair("", fleet_sources="10.0.0.1"), *pair("", fleet_sources=["10.0.0.0/24"])]
    assert texts != []
    assert all(text.startswith("fleet_sources") for text in texts)


def test_monitors() -> None:
    """Who may connect to the apps' ports is a list of addresses and networks."""

    def monitors(value: object) -> list[str]:
        return check_fleet([host("b1", "10.0.0.9", fleet_monitors=value)], [host("lb1", "10.0.0.1")])

    assert monitors(["10.9.0.0/24", "192.0.2.7", "2001:db8::/64", "::1"]) == monitors([]) == []
    for wrong in (["prometheus.example.org"], ["10.9.0.1/24"], "10.9.0.0/24", [7], ["10.9.0.0/33"]):
        [text] = monitors(wrong)
        assert re.match(r"fleet_monitors(\[0\])? is .*; allowed: a list, each an address or a network", text)


def test_groups() -> None:
    """B1, B2: an empty, absent or misspelt group is named with the groups that are there."""
    groups = {"all": ["a"], "ungrouped": [], "backend": ["a"], "balancers": []}
    [missing] = check_group("backends", groups)
    assert missing.text == (
        "group backends is missing; allowed: a group with at least one host; the inventory has"
        " backend, balancers (did you mean backend?)"
    )
    [empty] = check_group("balancers", groups)
    assert empty.text.startswith("group balancers is empty; allowed: a group with at least one")
    assert list(check_group("backend", groups)) == []


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("fe80::1", "an address that is not link-local"),
        ("fe80::1%eth0", "an address that is not link-local"),
        ("169.254.1.1", "an address that is not link-local"),
        ("0.0.0.0", "the address of one host"),
        ("::", "the address of one host"),
        ("224.0.0.1", "the address of one host"),
        ("127.0.0.1", "an address that the other hosts reach"),
        ("::1", "an address that the other hosts reach"),
        ("localhost", "an address that the other hosts reach"),
        *(
            (address, "an IPv4 address, an IPv6 address without brackets or a host name")
            for address in [
                *("[2001:db8::1]", "10.0.0.300", "10.0.0.1:80", "a b", "a;b", "a\n", "$a", 5, "-"),
                *("unix:/run/x", "*.a", "a" * 64, "a." * 130 + "a"),
            ]
        ),
    ],
)
def test_bad_address(address: object, allowed: str) -> None:
    """B7: an address that the balancers cannot use."""
    [text] = check_fleet([host("b1", address)], [host("lb")])
    assert text.startswith(f"fleet_address of b1 is {show(address)}; allowed: {allowed}")


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "b1", "b1.example.org", "10.a"])
def test_good_address(address: str) -> None:
    """B7: an address that they can."""
    assert check_fleet([host("b1", address)], [host("lb")]) == []


def test_no_lookups_without_a_network() -> None:
    """An app that may not go out cannot resolve a balancer's name."""
    backend = host("b1", "10.0.0.1")
    closed = Host("b2", {"fleet_address": "10.0.0.2"}, [app(network="none")])
    assert check_fleet([backend], [host("lb.example.org")]) == []
    assert check_fleet([closed], [host("lb", "10.0.0.9")]) == []
    (text,) = check_fleet([backend, closed], [host("lb.example.org")])
    assert text.startswith('fleet_address of lb.example.org is "lb.example.org"; allowed: an IP address')
    assert text.endswith("(network of shop is none)")


def test_loopback_on_one_machine() -> None:
    """Loopback is right where there is no other host."""
    single = host("all", "127.0.0.1")
    assert check_fleet([single], [single]) == []


@pytest.mark.parametrize(
    ("one", "two"), [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:DB8:0::1"), ("a.b", "A.B")]
)
def test_twins(one: str, two: str) -> None:
    """B2, B3: two hosts of a group with one address, however it is written."""
    twins = [host("h1", one), host("h2", two)]
    allowed = "an address of its own (h1 and h2 share it)"
    expected = [f'fleet_address of h2 is "{two}"; allowed: {allowed}']
    assert check_fleet(twins, [host("lb")]) == expected
    assert check_fleet([host("b1")], twins) == expected


def test_balancer_on_a_backend() -> None:
    """B4: a host may be both if the ports differ, whether by name or by address."""
    same = host("h1", "192.0.2.1", nginx_port=8080)
    text = "nginx_port of h1 is 8080; allowed: a port that no app of the same host has (shop has it on h1)"
    assert check_fleet([same], [same]) == [text]
    other = host("lb", "192.0.2.1", nginx_port="8080")
    [text] = check_fleet([host("h1", "192.0.2.1")], [other])
    assert text.startswith('nginx_port of lb is "8080"; allowed: a port that no app')
    assert check_fleet([host("h1")], [host("lb", nginx_port=8080)]) == []
    free = host("h1")
    assert check_fleet([free], [free]) == []


@pytest.mark.parametrize("port", [0, 70000, "80a", -1, 80.5])
def test_bad_nginx_port(port: object) -> None:
    """B5 holds for the ports of Nginx too, except privileged ones."""
    [text] = check_fleet([host("b1")], [host("lb", nginx_port=port)])
    assert text.startswith(f"nginx_port of lb is {show(port)}; allowed: a whole number from 1 to")


def test_nginx_ports_differ() -> None:
    """Nginx cannot answer with TLS and without on one port."""
    tls = {"nginx_certificate": {"file": "/a.pem"}, "nginx_tls": {"port": 80}}
    [text] = check_fleet([host("b1")], [host("lb", **tls)])
    assert text == "nginx_tls.port of lb is 80; allowed: another port than nginx_port has"


@pytest.mark.parametrize("batch", [0, -1, "0%", "101%", "half", 1.5, True, [], [1, "0%"], None, "1\n"])
def test_bad_batch(batch: object) -> None:
    """A batch is a number or a share of the hosts."""
    [text] = check_fleet([host("b1", deploy_serial=batch)], [host("lb")])
    bad = batch[-1] if isinstance(batch, list) and batch else batch
    assert text.startswith(f"deploy_serial is {show(bad)}; allowed: a whole number from 1")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"fleet_weight": 0}, "fleet_weight of b1 is 0; allowed: a whole number from 1 to 999"),
        ({"fleet_weight": "2x"}, 'fleet_weight of b1 is "2x"; allowed: a whole number from 1 to 999'),
        ({"fleet_backup": "yes"}, 'fleet_backup of b1 is "yes"; allowed: true or false'),
        ({"fleet_backup": True}, "allowed: false on at least one backend of shop"),
        ({"fleet_backup": True, "balance": "random"}, "has balance: random, which knows no reserve"),
    ],
)
def test_bad_shares(values: dict[str, Any], text: str) -> None:
    """A backend's share of the requests must leave somebody to answer."""
    apps = [app(balance=values.pop("balance"))] if "balance" in values else [app()]
    backends = [Host("b1", {"fleet_address": "10.0.0.1", **values}, apps)]
    if "balance" in apps[0]:
        backends.append(Host("b2", {"fleet_address": "10.0.0.2"}, apps))
    [found] = check_fleet(backends, [host("lb")])
    assert found.endswith(text)


def test_good_shares() -> None:
    """A reserve next to others, and a stronger machine."""
    spare = Host("b1", {"fleet_address": "10.0.0.1", "fleet_backup": True}, [app()])
    strong = Host("b2", {"fleet_address": "10.0.0.2", "fleet_weight": 3}, [app()])
    assert check_fleet([spare, strong], [host("lb")]) == []


@pytest.mark.parametrize("hosts", [[], "lb", ["nobody"], ["lb", 1]])
def test_bad_lock_hosts(hosts: object) -> None:
    """The lock needs a host to be on."""
    [text] = check_fleet([host("b1", fleet_lock_hosts=hosts)], [host("lb")])
    assert text.endswith("allowed: a list with at least one of b1, lb")


def test_good_witnesses() -> None:
    """Any hosts of the fleet will do, such as a backend while the balancer is down."""
    assert check_fleet([host("b1", fleet_lock_hosts=["b1", "lb"])], [host("lb")]) == []


@pytest.mark.parametrize("batch", [1, 200, "2", "1%", "100%", [1, "50%", 7]])
def test_good_batch(batch: object) -> None:
    """Any number of hosts and any share is right."""
    assert check_fleet([host("b1", deploy_serial=batch)], [host("lb")]) == []


def test_ladder() -> None:
    """B16: the message names both limits with both values."""
    for value in (75, "75s", 76):
        [text] = check_fleet([host("b1")], [host("lb", nginx_limits={"upstream_keepalive": value})])
        assert text == (
            f"nginx_limits.upstream_keepalive is {show(value)}; allowed: less than gunicorn_limits.keepalive,"
            " which is 75 (Nginx must close idle connections first)"
        )
    good = host("lb", nginx_limits={"upstream_keepalive": 74})
    assert check_fleet([host("b1")], [good]) == []


OPTIONS = {
    "app_source": {"type": "path"},
    "nginx_port": {"type": "int", "default": 80},
    "nginx_peers": {"type": "list", "elements": "int"},
    "nginx_headers": {"type": "dict"},
    "nginx_log": {"type": "str", "choices": ["short", "long"], "required": True},
    "nginx_tls": {"type": "dict", "options": {"port": {"type": "int"}, "names": {"type": "list"}}},
}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("app_sorce", "x", "app_sorce is unknown; allowed: app_source (did you mean app_source?)"),
        ("app_prot", "x", "app_prot is unknown; allowed: app_source"),
        ("fleet_adress", "x", "fleet_adress is unknown; allowed: fleet_address, fleet_"),
        ("nginx_port", "80a", 'nginx_port is "80a"; allowed: a whole number'),
        ("nginx_peers", "1,2", 'nginx_peers is "1,2"; allowed: a list (each a whole number)'),
        ("nginx_peers", ["x"], 'nginx_peers is ["x"]; allowed: a list (each a whole number)'),
        ("nginx_headers", "a=b", 'nginx_headers is "a=b"; allowed: a mapping'),
        ("nginx_log", "shrt", 'nginx_log is "shrt"; allowed: short, long'),
        ("nginx_tls", "443", 'nginx_tls is "443"; allowed: a mapping of port, names'),
        ("nginx_tls", None, "nginx_tls is null; allowed: a mapping of port, names"),
        ("nginx_tls", {"port": "x"}, 'nginx_tls.port is "x"; allowed: a whole number'),
        ("nginx_tls", {"port": None}, "nginx_tls.port is null; allowed: a whole number"),
        ("nginx_tls", {"names": "a,b"}, 'nginx_tls.names is "a,b"; allowed: a list'),
        ("nginx_tls", {"prot": 1}, "nginx_tls.prot is unknown; allowed: port, names (did you mean port?)"),
        ("nginx_tls", {443: 1}, "nginx_tls[443] is unknown; allowed: port, names"),
    ],
)
def test_bad_option(name: str, value: object, text: str) -> None:
    """B23, B24: a variable under our prefixes that no role has, or of the wrong type."""
    [problem] = check_option(name, value, OPTIONS)
    assert problem.text.startswith(text)


def test_option_of_another_role() -> None:
    """What looks like nothing of ours is another role's; under our own prefixes nothing is."""
    for name in ("nginx_vhosts", "nginx_ssl_log", "app_env", "app_port", "app_user"):
        assert is_foreign(name, OPTIONS, ["port", "environment"]), name
    for name in ("nginx_prot", "nginx_header", "app_prot", "app_sorce", "fleet_x", "balancer_x", "nginx_log"):
        assert not is_foreign(name, OPTIONS, ["port", "environment"]), name
    [problem] = check_option("app_prot", 1, OPTIONS, ["port"])
    assert problem.text.endswith("(did you mean the key port of an app?)")


def test_good_option() -> None:
    """Options of the right type pass; a prefix whose role is absent is not judged."""
    for name, value in {
        "nginx_port": "8080",
        "nginx_peers": [1],
        "nginx_headers": {},
        "nginx_log": "long",
        "nginx_tls": {"port": BROKEN, "names": ["a"]},
        "fleet_address": "x",
        "python_x": 1,
    }.items():
        assert list(check_option(name, value, OPTIONS)) == []


# --- Folders -------------------------------------------------------------------------------------

HASH = "--hash=sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("lock", "line", "text"),
    [
        (
            f"gunicorn==23.0.0 {HASH}",
            1,
            'gunicorn is "gunicorn==23.0.0"; allowed: gunicorn==27.0.1',
        ),
        ("gunicorn==27.0.1", 1, 'gunicorn is "gunicorn==27.0.1"; allowed: name==version with --h'),
        (f"gunicorn>=27.0.1 {HASH}", 1, 'gunicorn is "gunicorn>=27.0.1"; allowed: name==version'),
        (f"gunicorn==27.* {HASH}", 1, 'gunicorn is "gunicorn==27.*"; allowed: name==version'),
        (f"gunicorn==27.0.1 {HASH}\n# x\nflask==3 \\\n  # y", 3, 'flask is "flask==3"; allowed'),
        (f"gunicorn==27.0.1 {HASH}\n\n../x", 3, 'line is "../x"; allowed: name==version'),
        (f"gunicorn @ https://a.org/x {HASH}", 1, "gunicorn is "),
        (f"flask==3.1.0 {HASH}", 1, "gunicorn is missing; allowed: gunicorn==27.0.1 or later"),
        ("", 1, "gunicorn is missing; allowed: gunicorn==27.0.1 or later"),
    ],
)
def test_bad_lock(tmp_path: Path, lock: str, line: int, text: str) -> None:
    """B9, B18: a lock that leaves open what is installed."""
    (tmp_path / "requirements.txt").write_text(lock)
    [problem] = check_lock(tmp_path / "requirements.txt", "flask")
    assert problem.text.startswith(text)
    assert problem.where == f"{tmp_path}/requirements.txt:{line}"


def test_tornado_is_pinned(tmp_path: Path) -> None:
    """A Tornado app brings Tornado; a Flask app need not bring Flask."""
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"Gunicorn==27.0.1; python_version > '3' \\\n {HASH}")
    [problem] = check_lock(lock, "tornado")
    assert problem.text == "tornado is missing; allowed: tornado==version"
    assert list(check_lock(lock, "flask")) == []


def test_entrypoint(tmp_path: Path) -> None:
    """B10: the entry module is a file or a package."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "wsgi.py").touch()
    assert check_entrypoint(tmp_path, "shop:app")
    assert check_entrypoint(tmp_path, "shop.wsgi:create_app()")
    assert not check_entrypoint(tmp_path, "app:app")
    assert not check_entrypoint(tmp_path, "shop.asgi:app")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "app.py").touch()
    assert not check_entrypoint(tmp_path, "tests.app:app"), "does not ship"
    (tmp_path / ".paddockignore").write_text("shop/\n")
    assert not check_entrypoint(tmp_path, "shop.wsgi:app"), "does not ship"


def test_filter_fills_in_defaults() -> None:
    """The filter adds each default of the schema, keeps the order and shares nothing."""
    given = [app("b", routes=[{"path": "/"}]), app("a", threads=2)]
    before = json.dumps(given)
    first, second = complete_apps(given)
    assert json.dumps(given) == before
    assert (first["name"], second["name"]) == ("b", "a")
    for key, spec in SCHEMA["$defs"]["app"]["properties"].items():
        if "default" in spec:
            assert first[key] == spec["default"]
    assert second["threads"] == 2
    assert first["routes"] == [{"path": "/", "exact": False, "websocket": False}]
    first["environment"]["A"] = "x"
    first["server_names"].append("x")
    assert (second["environment"], second["server_names"]) == ({}, [])


def test_how_values_read() -> None:
    """One line, cut, and near misses only."""
    assert len(show("x" * 1000)) == 60
    assert show("a\n") == '"a\\n"'
    assert show_path(("apps", 0, "environment", "a b")) == 'apps[0].environment["a b"]'
    assert did_you_mean("zzz", ["backends"]) == ""


# --- The real thing ------------------------------------------------------------------------------


class Run(NamedTuple):
    """What a run said."""

    code: int
    output: str


class Fleet:
    """A copy of the small fleet with Paddock's plugins."""

    def __init__(self, folder: Path) -> None:
        """Copy the fleet to a folder."""
        self.folder = folder
        shutil.copytree(FLEET, folder)
        shutil.copy(ROOT / "ansible.cfg", folder)
        plays = yaml.safe_load((ROOT / "playbooks/plays/validate.yml").read_text())
        # What follows contacts the hosts.
        (folder / "playbooks").mkdir()
        (folder / "playbooks" / "validate.yml").write_text(yaml.safe_dump(plays[:1]))
        (folder / "playbooks" / "group_vars").symlink_to(ROOT / "playbooks/group_vars")
        self.contact = folder.with_name("contact")
        self.ssh = folder.with_name("ssh")
        self.ssh.write_text(f"#!/bin/sh\ntouch '{self.contact}'\nexit 255\n")
        self.ssh.chmod(0o755)

    def write(self, path: str, text: str) -> None:
        """Replace or add a file."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace text in a file."""
        text = (self.folder / path).read_text()
        assert old in text
        self.write(path, text.replace(old, new))

    def run(self, *options: str) -> Run:
        """Run the validation."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i"]
        command += ["inventory/hosts.yml", "playbooks/validate.yml", *options]
        config = {"ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        config["ANSIBLE_SSH_EXECUTABLE"] = str(self.ssh)
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | config,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not self.contact.exists(), "a host was contacted"
        return Run(done.returncode, done.stdout + done.stderr)

    def refuses(self, line: str, *options: str) -> None:
        """Assert that the validation fails with a line and contacts no host."""
        run = self.run(*options)
        assert run.code != 0, run.output
        assert any(text.strip().startswith(line) for text in run.output.splitlines()), run.output
        assert "no host was contacted or changed" in run.output
        assert "Traceback" not in run.output

    def accepts(self, *options: str) -> str:
        """Assert that the validation passes, changes nothing and contacts no host."""
        run = self.run(*options)
        assert run.code == 0, run.output
        assert "changed=0" in run.output
        return run.output


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Return a good fleet."""
    return Fleet(tmp_path / "fleet")


@pytest.mark.parametrize("options", [(), ("--check",), ("--limit", "b1"), ("--tags", "nginx")], ids=" ".join)
def test_good_fleet(fleet: Fleet, options: tuple[str, ...]) -> None:
    """B25, B26: a good fleet passes, with every option, and the task does run."""
    before = sorted(fleet.folder.rglob("*"))
    assert "ok=1" in fleet.accepts(*options)
    after = [path for path in fleet.folder.rglob("*") if "__pycache__" not in path.parts]
    assert sorted(after) == [path for path in before if "__pycache__" not in path.parts]


@pytest.mark.every(2)
@pytest.mark.parametrize("options", [(), ("--check",), ("--limit", "b1"), ("--tags", "nginx")], ids=" ".join)
def test_bad_apps(fleet: Fleet, options: tuple[str, ...]) -> None:
    """B8, B25, B26: file, line, key, value and what is allowed, with every option."""
    fleet.edit(APPS_FILE, "framework: flask", "framework: djnago")
    fleet.refuses(f'{APPS_FILE}:4: apps[0].framework is "djnago"; allowed: flask, tornado', *options)


GROUP = "a group with at least one host; the inventory has"


@pytest.mark.every(4)
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda fleet: fleet.edit("inventory/hosts.yml", "backends:", "backend:"),
            f"inventory/hosts.yml: group backends is missing; allowed: {GROUP} backend, balancers"
            " (did you mean backend?)",
        ),
        (
            lambda fleet: fleet.write("inventory/hosts.yml", "{backends: {}, balancers: {hosts: {lb: {}}}}"),
            f"inventory/hosts.yml: group backends is empty; allowed: {GROUP} balancers",
        ),
        (
            lambda fleet: fleet.write("inventory/hosts.yml", "backends: {hosts: {b1: {}}}"),
            f"inventory/hosts.yml: group balancers is missing; allowed: {GROUP} backends",
        ),
        (
            lambda fleet: fleet.edit("inventory/hosts.yml", "192.0.2.2", "192.0.2.1"),
            'inventory/hosts.yml:14: fleet_address of b2 is "192.0.2.1"; allowed: an address of'
            " its own (b1 and b2 share it)",
        ),
        (
            lambda fleet: fleet.edit("inventory/hosts.yml", "fleet_address: 192.0.2.9", ""),
            'inventory/hosts.yml:17: fleet_address of lb is "127.0.0.1"; allowed: an address that',
        ),
        (
            lambda fleet: fleet.write("inventory/host_vars/lb.yml", "nginx_port: '80a'\n"),
            'inventory/host_vars/lb.yml:1: nginx_port is "80a"; allowed: a whole number',
        ),
        (
            lambda fleet: fleet.write(
                "inventory/group_vars/balancers.yml", "---\nnginx_limits:\n  upstream_keepalive: 90\n"
            ),
            "inventory/group_vars/balancers.yml:3: nginx_limits.upstream_keepalive is 90; allowed: less"
            " than gunicorn_limits.keepalive, which is 75 (Nginx must close idle connections first)",
        ),
        (
            lambda fleet: fleet.write("inventory/group_vars/all/x.yml", "nginx_prot: 81\n"),
            "inventory/group_vars/all/x.yml:1: nginx_prot is unknown; allowed: nginx_adopt, nginx_",
        ),
        (
            lambda fleet: fleet.write(
                "inventory/group_vars/all/x.yml", "nginx_front: {proxies: 192.0.2.7}\n"
            ),
            'inventory/group_vars/all/x.yml:1: nginx_front.proxies is "192.0.2.7"; allowed: a list',
        ),
        (
            lambda fleet: fleet.write(
                "inventory/group_vars/all/x.yml",
                "nginx_front:\n  proxies:\n    - 192.0.2.7\n    - 2001:db8::/32\n    - cdn.example.org\n",
            ),
            'inventory/group_vars/all/x.yml:5: nginx_front.proxies[2] is "cdn.example.org"; allowed: an',
        ),
        (
            lambda fleet: fleet.write(
                "inventory/host_vars/lb.yml", "nginx_front: {proxies: [192.0.2.7/24]}\n"
            ),
            'inventory/host_vars/lb.yml:1: nginx_front.proxies[0] is "192.0.2.7/24"; allowed: an address or',
        ),
        (
            lambda fleet: fleet.write(
                "inventory/host_vars/lb.yml", "nginx_front: {health_path: 'up; evil'}\n"
            ),
            'inventory/host_vars/lb.yml:1: nginx_front.health_path is "up; evil"; allowed: a path',
        ),
        (
            lambda fleet: fleet.write(
                "inventory/group_vars/balancers.yml",
                "nginx_limits:\n  client_requests: 9\n  client_reqests: 9\n",
            ),
            "inventory/group_vars/balancers.yml:3: nginx_limits.client_reqests is unknown; allowed:"
            " client_requests, upstream_keepalive (did you mean client_requests?)",
        ),
        (
            lambda fleet: fleet.edit(APPS_FILE, "port: 8081", 'port: "{{ live_port }}"'),
            f'{APPS_FILE}:11: apps[1].port is "{{{{ live_port }}}}"; allowed: a value that can be'
            " rendered ('live_port' is undefined)",
        ),
        (
            lambda fleet: fleet.edit(
                APPS_FILE, "port: 8081", "port: 8081\n    environment: {K: 'pw{{ gone }}'}"
            ),
            f"{APPS_FILE}:12: apps[1].environment.K is a string (not shown); allowed: a value that"
            " can be rendered ('gone' is undefined)",
        ),
        (
            lambda fleet: fleet.edit(
                APPS_FILE,
                "port: 8081",
                "port: 8081\n    environment:\n      K: !vault |\n"
                "        $ANSIBLE_VAULT;1.1;AES256\n        3338",
            ),
            f"{APPS_FILE}:13: apps[1].environment.K is a value (not shown); allowed: a value that",
        ),
        (
            lambda fleet: fleet.write("inventory/host_vars/b2.yml", "apps: []\n"),
            "inventory/host_vars/b2.yml:1: apps is []; allowed: a list of apps, at least one",
        ),
        (
            lambda fleet: (fleet.folder / APPS_FILE).unlink(),
            "inventory/hosts.yml:9: apps is missing; allowed: a list of apps, at least one",
        ),
        (
            lambda fleet: shutil.rmtree(fleet.folder / "app_src" / "shop"),
            f"{APPS_FILE}:3: app_src/shop is missing; allowed: a folder with the app's code",
        ),
        (
            lambda fleet: (fleet.folder / "app_src" / "shop" / "x").symlink_to("x"),
            f"{APPS_FILE}:3: app_src/shop/x leads nowhere; allowed: a symlink to a file of the fo",
        ),
        (
            lambda fleet: fleet.edit(APPS_FILE, "port: 8080", "port: 8080\n    entrypoint: wsgi:x"),
            f'{APPS_FILE}:6: apps[0].entrypoint is "wsgi:x"; allowed: module:object of a module in'
            " app_src/shop, or of a package that app_src/shop/requirements.txt names",
        ),
        (
            lambda fleet: (fleet.folder / "app_src" / "live" / "app.py").rename(
                fleet.folder / "app_src" / "live" / "main.py"
            ),
            f'{APPS_FILE}:9: apps[1].entrypoint is "app:app"; allowed: module:object of a module',
        ),
        (
            lambda fleet: fleet.edit("app_src/live/requirements.txt", "27.0.1", "23.0.0"),
            'app_src/live/requirements.txt:2: gunicorn is "gunicorn==23.0.0"; allowed: gunicorn==',
        ),
        (
            lambda fleet: (fleet.folder / "app_src" / "live" / "requirements.txt").unlink(),
            f"{APPS_FILE}:9: app_src/live/requirements.txt is missing or no text; allowed: a lock",
        ),
        (
            lambda fleet: fleet.write("inventory/group_vars/balancers.yml", "fleet_tls: certbot\n"),
            'inventory/group_vars/balancers.yml:1: fleet_tls is "certbot"; allowed: off, files, self-signed',
        ),
        (
            lambda fleet: fleet.write(
                "inventory/group_vars/balancers.yml", "---\nnginx_tls: {hsts_seconds: 300}\n"
            ),
            "inventory/group_vars/balancers.yml:2: nginx_tls.hsts_seconds is 300; allowed: 0 while fleet",
        ),
        (
            lambda fleet: fleet.write(
                "inventory/group_vars/balancers.yml",
                "fleet_tls: files\ntls_certificate_file: /nowhere\n",
            ),
            'inventory/group_vars/balancers.yml:2: tls_certificate_file is "/nowhere"; allowed: a file',
        ),
    ],
    ids=[
        *("B1-misspelt", "B1-empty", "B2-absent", "B3", "B7", "B24-type", "B16", "B23", "B24-list"),
        *("front-name", "front-bits", "front-path", "structure-key"),
        *("B24-undefined", "undefined-secret", "B24-vault", "apps-of-a-host", "no-apps"),
        *("B9-missing", "B9-loop", "B10-entrypoint", "B10-module", "B18", "no-lock"),
        *("tls-mode", "B21", "B20"),
    ],
)
def test_bad_fleet(fleet: Fleet, change: Callable[[Fleet], object], line: str) -> None:
    """Real runs: file and line are those of the inventory."""
    change(fleet)
    fleet.refuses(line)


def test_dropped_line(fleet: Fleet) -> None:
    """A line of a lock that has no effect is refused where it is."""
    fleet.edit("app_src/live/requirements.txt", "gunicorn==", "-e .\ngunicorn==")
    fleet.refuses('app_src/live/requirements.txt:2: line is "-e ."; allowed: name==version with --hash=')


@pytest.mark.every(2)
@pytest.mark.parametrize("edit", [False, True], ids=["other-hash", "other-source"])
def test_own_wheel(fleet: Fleet, edit: bool) -> None:
    """A wheel that is not what the lock means stops a run, whatever an earlier run has kept in its cache."""
    name = "shop_core-1.0-py3-none-any.whl"
    (fleet.folder / "app_src/shop/wheels").mkdir()
    with zipfile.ZipFile(fleet.folder / "app_src/shop/wheels" / name, "w") as wheel:
        wheel.writestr("app.py", '"""An app that is never started."""\n\napp = None\n')
    content = (fleet.folder / "app_src/shop/wheels" / name).read_bytes()
    line = f"shop-core==1.0 --hash=sha256:{hashlib.sha256(content).hexdigest()}"
    unused = (
        f"{name} is not installed: app_src/shop/requirements.txt does not name shop-core. To have it, add "
    )
    assert f"{unused}{line}".replace(" ", "") in "".join(fleet.accepts().split())
    fleet.edit("app_src/shop/requirements.txt", "gunicorn==", f"{line}\ngunicorn==")
    assert "not installed" not in fleet.accepts()
    where = f"app_src/shop/requirements.txt:2: app_src/shop/wheels/{name}"
    if edit:
        fleet.write("app_src/shop/app.py", "app = 1\n")
        fleet.refuses(
            f"{where} is older than its source (app.py); allowed: a wheel of the code that is there"
        )
    else:
        with zipfile.ZipFile(fleet.folder / "app_src/shop/wheels" / name, "a") as wheel:
            wheel.writestr("new.py", "")
        fleet.refuses(f"{where} has the hash sha256:")


def test_entrypoint_of_a_package(fleet: Fleet) -> None:
    """What Gunicorn imports may be installed."""
    fleet.edit(APPS_FILE, "port: 8080", "port: 8080\n    entrypoint: gunicorn.app:run")
    fleet.accepts()


def test_extra_variables(fleet: Fleet) -> None:
    """A mistyped variable of the command line is found too."""
    fleet.refuses("<CLI option '-e'>: nginx_prot is unknown", "-e", "nginx_prot=81")


def test_variables_of_other_roles(fleet: Fleet) -> None:
    """A shared inventory may have them: one warning lists them, whatever their values."""
    fleet.write(
        "inventory/group_vars/all/x.yml", "nginx_vhosts: []\ngunicorn_pidfile: 7\nnginx_x: '{{ y }}'\n"
    )
    output = fleet.accepts()
    listed = "No role of Paddock has the variables gunicorn_pidfile, nginx_vhosts, nginx_x; they are left"
    assert " ".join(output.split()).count(listed) == 1, output


def test_gunicorn_file_of_the_app(fleet: Fleet) -> None:
    """It is never read, and the run says so."""
    fleet.write("app_src/shop/gunicorn.conf.py", "workers = 9\n")
    assert "app_src/shop/gunicorn.conf.py has no effect" in fleet.accepts()


@pytest.mark.every(3)
@pytest.mark.parametrize(
    ("file", "old", "new", "line"),
    [
        (
            APPS_FILE,
            "port: 8081",
            "port: 8081\n    outbound: false",
            f"{APPS_FILE}:9: apps[1].outbound is an old name; allowed: network: full or none",
        ),
        (APPS_FILE, "port: 8081", "prot: 8081", f"{APPS_FILE}:11: apps[1].prot is unknown"),
        (APPS_FILE, "port: 8081", "port: '{{ gone }}'", f"{APPS_FILE}:11: apps[1].port is"),
        (APPS_FILE, "port: 8081", "port: 8081\n    environment: {K: '{{ gone }}'}", f"{APPS_FILE}:12: "),
        (APPS_FILE, "name: live", "name: life", f"{APPS_FILE}:9: app_src/life is missing"),
        (
            "inventory/group_vars/all/fleet.yml",
            "fleet_sources: [10.0.0.1]",
            "fleet_sources: '{{ gone }}'",
            "inventory/group_vars/all/fleet.yml:1: fleet_sources is",
        ),
    ],
    ids=[
        "renamed-key",
        "mistyped-key",
        "undefined",
        "undefined-in-environment",
        "no-folder",
        "undefined-option",
    ],
)
def test_consequences_are_not_said(fleet: Fleet, file: str, old: str, new: str, line: str) -> None:
    """A file that the user never touched is not criticised for what is wrong elsewhere."""
    fleet.write("inventory/group_vars/all/fleet.yml", "fleet_sources: [10.0.0.1]\n")
    fleet.accepts()
    fleet.edit(file, old, new)
    fleet.refuses(line)
    assert "roles.yml" not in fleet.run().output


def test_variables_that_name_each_other(fleet: Fleet) -> None:
    """A circle is said, for nothing else is its cause."""
    circle = "nginx_port: '{{ nginx_adopt }}'\nnginx_adopt: '{{ nginx_port }}'\n"
    fleet.write("inventory/group_vars/all/x.yml", circle)
    fleet.refuses('inventory/group_vars/all/x.yml:1: nginx_port is "{{ nginx_adopt }}"')


def test_facts_are_no_option(fleet: Fleet) -> None:
    """An option that needs facts is left to its role, which has them."""
    template = "nginx_processes: '{{ ansible_facts.processor_vcpus }}'\n"
    fleet.write("inventory/group_vars/balancers.yml", template)
    fleet.accepts()


def test_locked_vault(fleet: Fleet) -> None:
    """B24: without its password a vaulted file stops the run, and is named."""
    password = fleet.folder / "password"
    password.write_text("x")
    vault = [str(Path(sys.executable).with_name("ansible-vault")), "encrypt", APPS_FILE]
    vault += ["--vault-password-file", str(password)]
    subprocess.run(vault, cwd=fleet.folder, check=True, capture_output=True)
    run = fleet.run()
    assert run.code != 0
    assert f"{APPS_FILE}: is encrypted by Ansible Vault" in run.output
    fleet.accepts("--vault-password-file", str(password))


def test_duplicate_yaml_key(fleet: Fleet) -> None:
    """A key that is there twice is named with file and line."""
    fleet.edit(APPS_FILE, "port: 8081", "port: 8081\n    port: 8082")
    output = fleet.run().output
    assert "port" in output
    assert re.search(rf"{APPS_FILE}:1[12]", output), output


def test_broken_yaml(fleet: Fleet) -> None:
    """B34: YAML that cannot be read stops the run, with file and line."""
    fleet.write(APPS_FILE, "apps:\n\t- name: shop\n")
    run = fleet.run()
    assert run.code != 0
    assert f"{APPS_FILE}:2: is not valid YAML: found character that cannot start" in run.output
    assert r'the line is "\t- name: shop"' in run.output


def test_broken_inventory(fleet: Fleet) -> None:
    """Ansible goes on without a file of hosts that it cannot read; the validation says what is wrong."""
    fleet.edit("inventory/hosts.yml", "        b2:", "       b2:")
    fleet.refuses("inventory/hosts.yml:12: is not valid YAML: did not find expected key")
    assert "1 problem; no host" in fleet.run().output


@pytest.mark.full
def test_one_backend(fleet: Fleet) -> None:
    """B33: one backend is a warning."""
    fleet.edit("inventory/hosts.yml", "        b2:", "    spare:\n      hosts:\n        b2:")
    assert "[WARNING]: There is one backend only" in fleet.accepts()


def test_two_hundred_backends(fleet: Fleet) -> None:
    """B33: one wrong backend of many is found."""
    hosts = {f"b{n}": {"fleet_address": f"192.0.2.{n}"} for n in range(1, 201)}
    groups = {"backends": {"hosts": hosts}, "balancers": {"hosts": {"lb": {}}}}
    fleet.write("inventory/hosts.yml", json.dumps(groups))
    fleet.accepts()
    hosts["b200"]["fleet_address"] = "192.0.2.300"
    fleet.write("inventory/hosts.yml", json.dumps(groups))
    fleet.refuses('inventory/hosts.yml: fleet_address of b200 is "192.0.2.300"; allowed: an IPv4')


def test_all_problems_at_once(fleet: Fleet) -> None:
    """One run names everything, once, in the order of the file."""
    fleet.edit(APPS_FILE, "framework: flask", "framework: djnago")
    fleet.edit(APPS_FILE, "port: 8080", "port: 80")
    fleet.edit(APPS_FILE, "port: 8081", "port: 70000")
    fleet.edit(APPS_FILE, "to: /}\n", "to: /}\nnginx_prot: 81\n")
    output = fleet.run().output
    fatal = output[output.index("fatal:") :]
    assert "4 problems; no host was contacted or changed:" in fatal
    lines = re.findall(rf"^\s*{APPS_FILE}:(\d+): ", fatal, re.MULTILINE)
    assert lines == ["4", "5", "11", "14"]


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_names(old: str, new: str) -> None:
    """An inventory with an old name is refused, and the new one is a setting."""
    (found,) = check_option(old, "x", {new: {"type": "str"}})
    assert found.text == f"{old} is an old name; allowed: {new}, its new name"
    settings: dict[str, Any] = dict.fromkeys(FLEET_VARIABLES)
    for path in ROOT.glob("roles/*/defaults/main.yml"):
        settings |= yaml.safe_load(path.read_text())
    assert old not in settings
    name, _, key = new.partition(".")
    assert key in settings[name] if key else name in settings
