"""Templates, rendered as Ansible does from the real defaults and group_vars, without any host."""

from __future__ import annotations

import ast
import json
import random
import re
import subprocess
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.paddock.fleet.plugins.module_utils import nginx_pool

ROOT = Path(__file__).parents[1]
HOSTS = ("app1", "app2", "app3")
OWN = {"file": "/etc/own.pem"}


Inventory = dict[str, Any]
Render = Callable[..., str]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    """Return a function that renders a role's template as a task on a host would."""
    (tmp_path / "group_vars").symlink_to(ROOT / "molecule/testbed/group_vars")
    hosts = tmp_path / "hosts.yml"

    def render(template: str, inventory: Inventory, host: str = "lb1", **variables: object) -> str:
        hosts.write_text(yaml.safe_dump(inventory, sort_keys=False))
        role = (ROOT / "roles" / template).parents[1]
        loader = DataLoader()
        loader.set_basedir(str(ROOT / "playbooks"))

        def load(name: str) -> dict[str, Any]:
            file = role / name / "main.yml"
            return loader.load_from_file(str(file), trusted_as_template=True) if file.exists() else {}

        manager = InventoryManager(loader=loader, sources=[str(hosts)])
        known = VariableManager(loader=loader, inventory=manager)
        known._extra_vars = variables
        HostVars(manager, known, loader)  # makes itself known to the manager
        host_vars = known.get_vars(host=manager.get_host(host))
        lookup = f"{{{{ lookup('ansible.builtin.template', '{ROOT}/roles/{template}') }}}}"
        there = {"role_path": str(role), **load("defaults"), **host_vars, **load("vars"), **variables}
        templar = Templar(loader=loader, variables=there)
        return templar.template(trust_as_template(lookup))

    return render


def fleet(backends: tuple[str, ...] = HOSTS, **host_vars: dict[str, Any]) -> Inventory:
    """Return an inventory of the balancer lb1 and some backends; app7 has the address 10.0.0.7."""

    def group(network: str, *names: str) -> Inventory:
        addresses = {name: f"{network}.{name.lstrip('abpl')}" for name in names}
        return {
            "hosts": {name: {"fleet_address": addresses[name]} | host_vars.get(name, {}) for name in names}
        }

    return {"balancers": group("10.1.0", "lb1"), "backends": group("10.0.0", *backends)}


def app(name: str = "shop", port: int = 8080, path: str = "/", **more: object) -> dict[str, Any]:
    """Return a small app."""
    return {"framework": "flask", "name": name, "port": port, "routes": [{"path": path}], **more}


# --- nginx.conf ----------------------------------------------------------------------------------


class Directive(list[str]):
    """A directive's words, and what is between its braces."""

    block: list[Directive] | None = None

    def find(self, *words: str) -> list[Directive]:
        """Return the directives in the block that start with some words."""
        return [inner for inner in self.block or [] if inner[: len(words)] == list(words)]


def parse(text: str) -> Directive:
    """Read nginx.conf by the rules of Nginx: words, quotes, comments, braces; or fail."""
    tokens = re.finditer(
        r"""\#[^\n]*|"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|[;{}]|[^\s;{}"'][^\s;{]*""", text
    )
    root = Directive()
    root.block = []
    stack, words = [root], Directive()
    for token in tokens:
        if token[0].startswith("#"):
            continue
        if token[0] not in (";", "{", "}"):
            words.append(next(found for found in (token[1], token[2], token[0]) if found is not None))
            continue
        if token[0] == "}":
            assert not words, f"no ; after {words}"
            stack.pop()
            continue
        assert words, "a directive without a name"
        stack[-1].block.append(words)
        if token[0] == "{":
            words.block = []
            stack.append(words)
        words = Directive()
    assert stack == [root]
    assert not words
    return root


@pytest.fixture
def nginx(render: Render) -> Callable[..., Directive]:
    """Return a function that renders and parses nginx.conf as a host has it; it returns the block http."""

    def nginx(inventory: Inventory | None = None, **variables: object) -> Directive:
        content = render("nginx/templates/nginx.conf.j2", inventory or fleet(), **variables)
        (http,) = parse(nginx_pool.render(nginx_pool.Wanted(content), ())).find("http")
        return http

    return nginx


def members(http: Directive, upstream: str) -> list[str]:
    """Return the addresses of an upstream's servers, those of last resort apart by a word."""
    (found,) = http.find("upstream", upstream)
    return [" ".join(word for word in server[1:] if "=" not in word) for server in found.find("server")]


def test_apps_of_the_repository(nginx: Callable[..., Directive]) -> None:
    """The real apps.yml: each app is an upstream of all backends, each route a location."""
    apps = yaml.safe_load((ROOT / "inventory/group_vars/all/apps.yml").read_text())["apps"]
    http = nginx()
    for entry in apps:
        servers = [f"10.0.0.{number}:{entry['port']}" for number in (1, 2, 3)]
        assert members(http, entry["name"]) == servers + [f"{server} backup" for server in servers]
    locations = [location for server in http.find("server") for location in server.find("location")]
    for route in (route for entry in apps for route in entry["routes"]):
        words = ["location", *(["="] if route.get("exact") else []), route["path"]]
        assert words in locations


def test_large_fleet(nginx: Callable[..., Directive]) -> None:
    """Two hundred backends and five apps are all there."""
    apps = [app(f"shop{number}", 8080 + number, f"/{number}/") for number in range(5)]
    http = nginx(fleet(tuple(f"app{number}" for number in range(1, 201))), apps=apps)
    assert [len(members(http, entry["name"])) for entry in apps] == [400] * 5


def test_one_backend(nginx: Callable[..., Directive]) -> None:
    """A single backend has its twin too: it makes Nginx try again."""
    assert members(nginx(fleet(("app1",)), apps=[app()]), "shop") == ["10.0.0.1:8080", "10.0.0.1:8080 backup"]


def test_health_checks(render: Render) -> None:
    """What is checked is what is balanced: each app on its backends, at their addresses."""
    shop, news = app(health_path="/up", server_names=["a.example.org"]), app("news", 8081, "/news/")
    hosts = fleet(lb1={"apps": [shop, news]}, app1={"apps": [shop]}, app3={"fleet_address": "2001:db8::1"})
    for name in ("app2", "app3"):
        hosts["backends"]["hosts"][name]["apps"] = [news]
    asked = json.loads(render("health/templates/nginx-health.json.j2", hosts))["apps"]
    assert asked == {
        "news": {
            "port": 8081,
            "path": "/readyz",
            "host": "localhost",
            "backends": {"app2": "10.0.0.2", "app3": "2001:db8::1"},
        },
        "shop": {"port": 8080, "path": "/up", "host": "a.example.org", "backends": {"app1": "10.0.0.1"}},
    }


@pytest.mark.parametrize("balance", ["round_robin", "least_conn", "ip_hash", "random"])
def test_balance(nginx: Callable[..., Directive], balance: str) -> None:
    """The method is named, the default is not, and the hashing ones have no backups."""
    http = nginx(apps=[app(balance=balance)])
    (upstream,) = http.find("upstream", "shop")
    assert [method for method in ("least_conn", "ip_hash", "random") if upstream.find(method)] == (
        [balance] if balance != "round_robin" else []
    )
    backups = sum("backup" in server for server in members(http, "shop"))
    assert backups == (3 if balance in ("round_robin", "least_conn") else 0)


def test_weights(nginx: Callable[..., Directive]) -> None:
    """A stronger backend has its share in both rows."""
    (upstream,) = nginx(fleet(("app1", "app2"), app1={"fleet_weight": 3}), apps=[app()]).find("upstream")
    weighed = [server[1] for server in upstream.find("server") if "weight=3" in server]
    assert weighed == ["10.0.0.1:8080"] * 2


def test_reserve(nginx: Callable[..., Directive]) -> None:
    """A backend in reserve is what all others have instead of their twins, and never marked as failed."""
    http = nginx(fleet(app3={"fleet_backup": True}), apps=[app()])
    assert members(http, "shop") == ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080 backup"]


def tls(http: Directive) -> list[Directive]:
    """Return the servers that speak TLS."""
    return [
        server for server in http.find("server") if any("ssl" in listen for listen in server.find("listen"))
    ]


def test_tls(nginx: Callable[..., Directive]) -> None:
    """Apps are served over TLS alone; plain requests are sent there, to the name that they asked for."""
    apps = [app(server_names=["b.example.org"]), app("news", 8081, server_names=["a.example.org"])]
    http = nginx(apps=apps, nginx_certificate=OWN, nginx_tls={"port": 8443, "hsts_seconds": 60})
    assert http.find("ssl_certificate") == [["ssl_certificate", "/etc/own.pem"]]
    *named, refused = tls(http)
    assert [server.find("server_name")[0][1:] for server in named] == [["a.example.org"], ["b.example.org"]]
    assert refused.find("ssl_reject_handshake", "on")
    plain = servers(http)
    assert plain.keys() == {"a.example.org b.example.org", "*"}
    (location,) = plain["a.example.org b.example.org"].find("location")
    assert location.find("return", "308", "https://$host:8443$request_uri")
    assert http.find("add_header", "Strict-Transport-Security")


def test_one_key_of_a_structure(nginx: Callable[..., Directive]) -> None:
    """Who sets one key keeps the defaults of the others."""
    http = nginx(apps=[app()], nginx_limits={"client_requests": 9}, nginx_maintenance={"enabled": True})
    assert http.find("limit_conn", "requests", "9")
    assert http.find("upstream", "shop")[0].find("keepalive_timeout", "30s")
    (location,) = servers(http)["*"].find("location")
    assert "We are working on it" in location.find("return", "503")[0][2]


@pytest.mark.parametrize(("debian", "listen", "http2"), [("12", True, False), ("13", False, True)])
def test_http2(nginx: Callable[..., Directive], debian: str, listen: bool, http2: bool) -> None:
    """Nginx 1.22 and 1.26 are told in their own ways."""
    facts = {"distribution_major_version": debian}
    http = nginx(apps=[app()], nginx_certificate=OWN, ansible_facts=facts)
    (server,) = tls(http)
    assert all(("http2" in found) == listen for found in server.find("listen"))
    assert bool(http.find("http2", "on")) == http2


@pytest.mark.parametrize("certificate", ["", "/etc/own.pem"])
@pytest.mark.parametrize("names", [[], ["a.example.org"]])
def test_acme(nginx: Callable[..., Directive], certificate: str, names: list[str]) -> None:
    """Challenges are answered without TLS under every name, and balancers ask each other but once."""
    apps = [app(server_names=names)]
    acme = {"acme_root": "/a", "acme_peers": ["10.1.0.2"]}
    http = nginx(apps=apps, nginx_certificate={"file": certificate, **acme})
    for server in servers(http).values():
        (location,) = server.find("location", "^~", "/.well-known/acme-challenge/")
        assert location.find("root", "/a")
        (peers,) = server.find("location", "@acme_peers")
        assert peers.find("if", "($http_x_acme_peer)")
        assert peers.find("proxy_set_header", "X-Acme-Peer", "yes")
    assert members(http, "acme_peers") == ["10.1.0.2:80"]


def test_ipv6_addresses(nginx: Callable[..., Directive]) -> None:
    """An IPv6 address and a port need brackets between them."""
    http = nginx(fleet(("app1",), app1={"fleet_address": "2001:db8::1"}), apps=[app()])
    assert members(http, "shop")[0] == "[2001:db8::1]:8080"


def test_names(render: Render) -> None:
    """A name is a place for its address, which is put there on the host, and followed."""
    hosts = fleet(app2={"fleet_address": "app2.example.org"}, app3={"fleet_address": "2001:db8::1"})
    acme = {"acme_root": "/a", "acme_peers": ["lb2.example.org", "10.1.0.3"]}
    text = render("nginx/templates/nginx.conf.j2", hosts, apps=[app()], nginx_certificate=acme)
    asked = nginx_pool.Wanted(text)
    assert asked.names == ["app2.example.org", "lb2.example.org"]
    given = {"app2.example.org": "10.0.0.2", "lb2.example.org": "2001:db8::2"}
    lines = nginx_pool.render(asked._replace(addresses=given), {("shop", "app2")}).splitlines()
    named = [line.strip() for line in lines if "10.0.0.2" in line or "2001:db8::2" in line]
    assert [re.sub(r"max_fails=\S+ (fail_timeout=\S+ )?|{.*http", "", line) for line in named] == [
        "server 10.0.0.2:8080 down; # app2 (app2.example.org)",
        "server 10.0.0.2:8080 backup down; # app2 (app2.example.org)",
        "server [2001:db8::2]:80;",
        "location = /backends/shop/app2 ://10.0.0.2:8080/readyz; }",
    ]


def test_apps_of_some_backends(nginx: Callable[..., Directive]) -> None:
    """A backend is a member of its own apps only."""
    shop, news = app("shop", 8080, "/shop/"), app("news", 8081, "/news/")
    both = {"apps": [shop, news]}
    http = nginx(fleet(lb1=both, app1=both, app2={"apps": [shop]}, app3={"apps": [news]}))
    assert members(http, "shop")[:2] == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert members(http, "news")[:2] == ["10.0.0.1:8081", "10.0.0.3:8081"]
    assert [len(members(http, name)) for name in ("shop", "news")] == [4, 4]


def test_order_of_the_inventory(render: Render) -> None:
    """The order in which hosts are written changes no byte, so it reloads nothing."""
    orders = [random.Random(seed).sample(HOSTS, 3) for seed in range(5)]
    assert len({str(order) for order in orders}) > 1
    assert len({render("nginx/templates/nginx.conf.j2", fleet(tuple(order))) for order in orders}) == 1


def servers(http: Directive) -> dict[str, Directive]:
    """Return the public servers by their names; the default one, whatever it says, as `*`."""
    found = {}
    for server in http.find("server"):
        if server.find("listen", "80", "default_server"):
            assert server.find("listen", "[::]:80", "default_server")
            found["*"] = server
        elif server.find("listen", "80"):
            found[" ".join(server.find("server_name")[0][1:])] = server
    return found


def paths(server: Directive) -> list[str]:
    """Return the paths of a server's locations."""
    return [" ".join(location[1:]) for location in server.find("location")]


def test_apps_without_names(nginx: Callable[..., Directive]) -> None:
    """They share the default server, where the rest is 404."""
    found = servers(nginx(apps=[app("shop", 8080, "/shop/"), app("news", 8081, "/news/")]))
    assert {name: paths(server) for name, server in found.items()} == {"*": ["/shop/", "/news/", "/"]}
    assert found["*"].find("location", "/")[0].find("return", "404")


def test_apps_with_names(nginx: Callable[..., Directive]) -> None:
    """Apps of the same names share a server; a name of no app is closed without an answer."""
    shop = app("shop", 8080, server_names=["b.example.org", "A.example.org"])
    news = app("news", 8081, "/news/", server_names=["a.example.org", "B.example.org"])
    other = app("other", 8082, server_names=["c.example.org"])
    found = servers(nginx(apps=[shop, news, other]))
    closed = found.pop("*")
    assert {name: paths(server) for name, server in found.items()} == {
        "a.example.org b.example.org": ["/", "/news/"],
        "c.example.org": ["/"],
    }
    assert paths(closed) == ["/"]
    assert closed.find("location", "/")[0].find("return", "444")


@pytest.mark.parametrize(
    ("route", "words", "target", "prefix"),
    [
        ({"path": "/a/"}, ["/a/"], "http://shop", []),
        ({"path": "/a/", "to": "/"}, ["/a/"], "http://shop/$1", ["/a"]),
        ({"path": "/a/b/", "to": "/"}, ["/a/b/"], "http://shop/$1", ["/a/b"]),
        ({"path": "/a.b/", "to": "/b/"}, ["/a.b/"], "http://shop/b/$1", []),
        ({"path": "/a", "exact": True, "to": "/"}, ["=", "/a"], "http://shop/", []),
        ({"path": "/", "to": "/"}, ["/"], "http://shop/$1", []),
    ],
)
def test_route(
    nginx: Callable[..., Directive], route: dict[str, Any], words: list[str], target: str, prefix: list[str]
) -> None:
    """A route says what is matched, and what the app sees instead."""
    http = nginx(apps=[{**app(), "routes": [route]}])
    (location,) = servers(http)["*"].find("location", *words)
    assert location.find("proxy_pass") == [["proxy_pass", target]]
    assert [found[2] for found in location.find("set", "$stripped_prefix")] == prefix
    assert [found[-1] for found in location.find("rewrite")] == (
        ["$request_uri", "break"] if "$" in target else []
    )
    # Whatever is not understood reaches no app.
    assert location.find("return") == ([["return", "400"]] if "$" in target else [])


@pytest.mark.parametrize(
    ("path", "sent", "rest"),
    [
        ("/a/", "/a/", ""),
        ("/a/", "/a/b%2Fc//d?e=/f/", "b%2Fc//d?e=/f/"),
        ("/a/", "/a/?", "?"),
        ("/a/", "/a//b", "/b"),
        ("/a/", "//%61%2Fb", "b"),
        ("/a.b/c/", "/a%2eb/%2F/%63/%2F", "%2F"),
        ("/", "/b", "b"),
    ],
)
def test_rest_of_a_path(nginx: Callable[..., Directive], path: str, sent: str, rest: str) -> None:
    """However a prefix is spelled, what follows it is as it was sent."""
    http = nginx(apps=[app(routes=[{"path": path, "to": "/x/"}])])
    (location,) = servers(http)["*"].find("location", path)
    _, (_, regex, target, _) = location.find("rewrite")
    matched = re.match(regex, sent)
    assert matched
    assert (target, matched[1]) == ("/x/$1", rest)


def test_time_limits(nginx: Callable[..., Directive]) -> None:
    """Connecting is tried often, a slow request once, and a reload waits for the slowest app."""

    def seconds(directive: Directive) -> int:
        return int(directive[1].removesuffix("s"))

    http = nginx(apps=[app(timeout=1), app("news", 8081, "/news/", timeout=300)])
    connect = seconds(*http.find("proxy_connect_timeout")) * int(http.find("proxy_next_upstream_tries")[0][1])
    limits = [
        tuple(seconds(*location.find(f"proxy_{name}_timeout")) for name in ("next_upstream", "read"))
        for location in servers(http)["*"].find("location")
    ]
    assert limits == [(3, 6), (300, 305)]
    assert all(connect <= spread < read for spread, read in limits)


def words(directive: Directive) -> str:
    """Return all words of a block."""
    return " ".join([*directive, *(words(inner) for inner in directive.block or [])])


def test_scheme(nginx: Callable[..., Directive]) -> None:
    """How the client came is what a listed proxy says, in each place that asks."""
    apps = [app(cache_seconds=5)]
    alone = words(nginx(apps=apps, **TLS))
    assert "$client_scheme" not in alone
    http = nginx(apps=apps, nginx_front={"proxies": ["192.0.2.1", "2001:db8::/32"]}, **TLS)
    (geo,) = http.find("geo", "$realip_remote_addr")
    assert geo.block == [["default", ""], ["192.0.2.1", "yes"], ["2001:db8::/32", "yes"]]
    (scheme,) = http.find("map", "$front_proxy $http_x_forwarded_proto", "$client_scheme")
    assert scheme.block[0] == ["default", "$scheme"]
    assert http.find("proxy_set_header", "X-Forwarded-Proto", "$client_scheme")
    rest = words(http).replace(words(scheme), "")
    assert not re.search(r"\$scheme\b", rest)
    assert rest.count("$client_scheme") == alone.count("$scheme") + 1  # and no redirect for ever


def test_health_of_nginx(nginx: Callable[..., Directive]) -> None:
    """On the plain port Nginx answers for itself by every name and by none, and nowhere else."""
    for names, certificate in (
        ([], ""),
        (["a.example.org"], ""),
        ([], "/own.pem"),
        (["a.example.org"], "/own.pem"),
    ):
        given = {"apps": [app(server_names=names)], "nginx_certificate": {"file": certificate}}
        http = nginx(**given, nginx_front={"health_path": "/lb"})
        there = {id(server) for server in http.find("server") if server.find("location", "=", "/lb")}
        assert there == {id(server) for server in servers(http).values()}
        assert not any(server.find("location", "=", "/lb") for server in nginx(**given).find("server"))


NASTY = [
    '"; } evil on; {',
    "a'; evil on;",
    "back\\",
    "\n evil on;",
    "# no comment",
    "$x{y}",
    "gr\u00fc\u00dfe",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_no_value_ends_a_directive(nginx: Callable[..., Directive], nasty: str) -> None:
    """What a variable holds stays within its word; Nginx may refuse it, but not misread it."""

    def shape(directive: Directive) -> Any:
        first = "plain" if directive[0] == json.dumps(nasty)[1:-1] else directive[0]
        return first, len(directive), [shape(inner) for inner in directive.block or []]

    plain = nginx(nginx_headers={"X-Plain": "plain"}, nginx_front={"proxies": ["plain"]})
    evil = nginx(nginx_headers={f"X-{nasty}": nasty}, nginx_front={"proxies": [nasty]})
    names = re.compile(r"X-|upstream_http_|add_")
    assert names.sub("", str(shape(plain))) == names.sub("", str(shape(evil)))


NAMED = {"server_names": ["a.example.org"]}
TLS = {"nginx_certificate": OWN, "nginx_tls": {"hsts_seconds": 63072000}}
BOOKWORM = {"ansible_facts": {"distribution_major_version": "12"}}
ACME = {"acme_root": "/var/www/acme", "acme_peers": ["10.1.0.2"]}
# What the inventory has in addition to one app, for an nginx.conf of each shape.
VARIANTS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, object]]] = {
    "one app": ([app()], {}, {}),
    "one name": ([app(**NAMED)], {}, {}),
    "two names and none": ([app(**NAMED), app("b", 1, server_names=["b.example.org"]), app("c", 2)], {}, {}),
    "IPv6": ([app()], {"app1": {"fleet_address": "2001:db8::1"}}, {}),
    "weights": ([app()], {"app1": {"fleet_weight": 5}}, {}),
    "a reserve": ([app()], {"app1": {"fleet_backup": True}}, {}),
    "least_conn": ([app(balance="least_conn")], {}, {}),
    "ip_hash": ([app(balance="ip_hash")], {}, {}),
    "random": ([app(balance="random")], {}, {}),
    "exact route": ([app(routes=[{"path": "/a", "exact": True, "to": "/b"}])], {}, {}),
    "stripped prefix": ([app(routes=[{"path": "/a/", "to": "/"}, {"path": "/b.c/", "to": "/d/"}])], {}, {}),
    "WebSocket": ([app(routes=[{"path": "/ws", "exact": True, "websocket": True}])], {}, {}),
    "front proxies": ([app()], {}, {"nginx_front": {"proxies": ["192.0.2.1", "2001:db8::/32"]}}),
    "front proxies and TLS": (
        [app(cache_seconds=5, **NAMED)],
        {},
        {"nginx_front": {"proxies": ["192.0.2.1"], "health_path": "/up"}, **TLS},
    ),
    "TLS": ([app()], {}, TLS),
    "TLS without HSTS": ([app()], {}, {"nginx_certificate": OWN}),
    "TLS on Debian 12": ([app()], {}, {**TLS, **BOOKWORM}),
    "TLS of a name": ([app(**NAMED)], {}, TLS),
    "TLS of a name on Debian 12": ([app(**NAMED)], {}, {**TLS, **BOOKWORM}),
    "TLS on another port": ([app()], {}, {**TLS, "nginx_tls": {"port": 8443}, "nginx_port": 8080}),
    "ACME before TLS": ([app(**NAMED)], {}, {"nginx_certificate": ACME}),
    "ACME and TLS": ([app(**NAMED)], {}, {**TLS, "nginx_certificate": {**OWN, **ACME}}),
    "cache": ([app(cache_seconds=5)], {}, {}),
    "limits": ([app(rate_limit=10, concurrency_limit=50)], {}, {}),
    "maintenance of one": ([app(maintenance=True), app("b", 1, "/b/")], {}, {}),
    "maintenance of all": ([app()], {}, {"nginx_maintenance": {"enabled": True}}),
    "other headers": ([app()], {}, {"nginx_headers": {"X-A": "b", "Content-Security-Policy": "sandbox"}}),
    "no headers": ([app()], {}, {"nginx_headers": {}}),
}


@pytest.fixture
def gixy(render: Render, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that names what gixy has to say of an nginx.conf, at any level."""

    def gixy(
        apps: list[dict[str, Any]], hosts: dict[str, Any], variables: dict[str, object], more: str = ""
    ) -> list[str]:
        text = render("nginx/templates/nginx.conf.j2", fleet(**hosts), apps=apps, **variables)
        file = tmp_path / "nginx.conf"
        file.write_text(text.replace("\nhttp {", f"\nhttp {{ {more}"))
        done = subprocess.run(["gixy", "-f", "json", file], capture_output=True, text=True, check=False)
        return [f"{found['plugin']}: {found['reason']}" for found in json.loads(done.stdout)]

    return gixy


@pytest.mark.every(2)
@pytest.mark.parametrize("variant", VARIANTS)
def test_gixy(gixy: Callable[..., list[str]], variant: str) -> None:
    """Gixy has nothing to say."""
    assert gixy(*VARIANTS[variant]) == []


def test_gixy_reads_the_file(gixy: Callable[..., list[str]]) -> None:
    """It would have something to say."""
    (found,) = gixy(
        [app()], {}, {}, "server { listen 81; resolver 192.0.2.1; location / { proxy_pass http://$arg_to; } }"
    )
    assert found.startswith("ssrf: ")


# --- Gunicorn ------------------------------------------------------------------------------------


@pytest.fixture
def gunicorn(render: Render) -> Callable[..., str]:
    """Return a function that renders a template of the role gunicorn for one app."""

    def gunicorn(template: str, entry: dict[str, Any] | None = None, **variables: object) -> str:
        entry = entry or app()
        return render(
            f"gunicorn/templates/{template}",
            fleet(),
            "app1",
            apps=[entry],
            gunicorn_releases={entry["name"]: "0123456789ab"},
            ansible_facts={"python": {"version": {"major": 3, "minor": 13}}},
            __gunicorn_name=entry["name"],
            **variables,
        )

    return gunicorn


def settings(text: str) -> dict[str, str]:
    """Return what a Python configuration assigns, as source; fails where it is not Python."""
    compile(text, "gunicorn.conf.py", "exec", dont_inherit=True)
    return {
        node.targets[0].id: ast.unparse(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, {"worker_class": "'gthread'", "threads": "4"}),
        ({"threads": 9, "workers": 3}, {"threads": "9", "workers": "3"}),
        ({"workers": "auto"}, {"workers": "2 * len(os.sched_getaffinity(0))"}),
        ({"timeout": 7}, {"timeout": "7", "graceful_timeout": "12"}),
        ({"framework": "tornado"}, {"worker_class": "DrainingTornadoWorker"}),
        ({"name": "a-b-1", "entrypoint": "a.b:make()"}, {"proc_name": "'a-b-1'"}),
    ],
)
def test_gunicorn_conf(gunicorn: Callable[..., str], entry: dict[str, Any], expected: dict[str, str]) -> None:
    """The configuration is Python, and says what the app's entry says."""
    found = settings(gunicorn("gunicorn.conf.py.j2", app(**entry)))
    assert found | expected == found
    assert ("threads" in found) == (entry.get("framework") != "tornado")


def test_gunicorn_trusts_the_balancers_only(gunicorn: Callable[..., str]) -> None:
    """Whose X-Forwarded-Proto is believed comes from the inventory."""
    found = settings(gunicorn("gunicorn.conf.py.j2"))
    assert found["balancers"] == "['10.1.0.1']"
    assert found["forwarder_headers"] == "''"


def test_gunicorn_outlives_the_connections_of_nginx(
    gunicorn: Callable[..., str], nginx: Callable[..., Directive]
) -> None:
    """Nginx closes idle connections first: otherwise a POST may meet a closed one."""
    (upstream,) = nginx(apps=[app()]).find("upstream", "shop")
    idle = int(upstream.find("keepalive_timeout")[0][1].removesuffix("s"))
    tornado = settings(gunicorn("gunicorn.conf.py.j2", app(framework="tornado")))
    assert idle < int(tornado["keepalive"])
    assert settings(gunicorn("gunicorn.conf.py.j2", app()))["keepalive"] == "0"


def unit(text: str) -> ConfigParser:
    """Parse a unit file."""
    parser = ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment]  # systemd minds the case
    parser.read_string(text)
    return parser


@pytest.mark.parametrize(
    ("address", "listen"),
    [("", "8080"), ("10.0.0.1", "10.0.0.1:8080"), ("2001:db8::1", "[2001:db8::1]:8080")],
)
def test_socket(gunicorn: Callable[..., str], address: str, listen: str) -> None:
    """Systemd is told address and port in its own notation."""
    parser = unit(gunicorn("app.socket.j2", gunicorn_listen_address=address))
    assert parser["Socket"]["ListenStream"] == listen


def test_slot(gunicorn: Callable[..., str]) -> None:
    """The unit runs this release of the app as the app's own user, for long enough."""
    parser = unit(gunicorn("slot.service.j2", app(entrypoint="shop.wsgi:make()", timeout=40)))
    service = parser["Service"]
    assert service["User"] == service["Group"] == "shop"
    assert service["WorkingDirectory"] == "/srv/shop/releases/0123456789ab-py3.13/app"
    assert " /srv/shop/releases/0123456789ab-py3.13/venv/bin/python " in service["ExecStart"]
    assert service["ExecStart"].endswith("/gunicorn.conf.py shop.wsgi:make()")
    graceful = settings(gunicorn("gunicorn.conf.py.j2", app(timeout=40)))["graceful_timeout"]
    assert int(service["TimeoutStopSec"]) > int(graceful)


def test_slot_without_a_network(gunicorn: Callable[..., str]) -> None:
    """An app that may not go out has no network but the socket that it is given."""
    service = unit(gunicorn("slot.service.j2", app(network="none")))["Service"]
    assert service["PrivateNetwork"] == "yes"
    assert service["RestrictAddressFamilies"] == "AF_UNIX"
    assert "PrivateNetwork" not in unit(gunicorn("slot.service.j2"))["Service"]
