"""Rules for what Nginx is told: its ports, the proxies in front of it, its time limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from .hosts import Host, address_of, is_network
from .problem import BROKEN, KeyPath, Problem, problem, show, show_path


def check_nginx(backends: list[Host], balancers: list[Host]) -> Iterator[Problem]:
    """Check what the balancers' Nginx is told.

    Args:
        backends: The hosts that run the apps.
        balancers: The hosts that run Nginx.

    Yields:
        A problem for each value that is wrong or does not fit to another one.
    """
    for host in balancers:
        yield from _check_ports(host, backends)
        yield from _check_front(host)
    yield from _check_ladder(backends, balancers)


def _check_ports(balancer: Host, backends: list[Host]) -> Iterator[Problem]:
    tls = balancer.key("nginx_certificate", "file") not in (None, "", BROKEN)
    given: dict[KeyPath, object] = {("nginx_port",): balancer.values.get("nginx_port")}
    if tls:
        given["nginx_tls", "port"] = balancer.key("nginx_tls", "port")
    ports = {path: port for path, port in given.items() if port not in (None, BROKEN)}

    def wrong(path: KeyPath, allowed: str) -> Problem:
        key = f"{show_path(path)} of {balancer.name}"
        return problem(path, f"is {show(ports[path])}", allowed, key=key, host=balancer.name)

    for path, port in ports.items():
        if not re.fullmatch(r"\d{1,5}", str(port)) or not 1 <= int(str(port)) <= 65535:
            yield wrong(path, "a whole number from 1 to 65535")
    first: dict[str, KeyPath] = {}
    for path, port in ports.items():
        if (other := first.setdefault(str(port), path)) != path:
            yield wrong(path, f"another port than {show_path(other)} has")
    for backend in backends:
        if balancer.name != backend.name and address_of(balancer) != address_of(backend):
            continue
        for (path, port), app in product(ports.items(), backend.apps):
            if str(port) == str(app.get("port")):
                there = f"{app.get('name')} has it on {backend.name}"
                yield wrong(path, f"a port that no app of the same host has ({there})")


def _check_front(balancer: Host) -> Iterator[Problem]:
    """Check what is said of proxies in front: a name would keep Nginx from starting when it is lost."""
    proxies = balancer.key("nginx_front", "proxies")
    for index, one in enumerate(proxies if isinstance(proxies, list) else []):
        if one is not BROKEN and not is_network(one):
            allowed = "an address or a network, IPv4 or IPv6, such as 192.0.2.7 or 192.0.2.0/24; no name"
            path = ("nginx_front", "proxies", index)
            yield problem(path, f"is {show(one)}", allowed, host=balancer.name)
    health = balancer.key("nginx_front", "health_path")
    if health not in (None, BROKEN) and not re.fullmatch(r"(/[A-Za-z0-9._~/-]*)?", str(health)):
        allowed = "a path such as /nginx-health, or empty"
        yield problem(("nginx_front", "health_path"), f"is {show(health)}", allowed, host=balancer.name)


def _seconds(value: object) -> float | None:
    number = re.fullmatch(r"(\d+(?:\.\d+)?)s?", str(value))
    return float(number[1]) if number else None


def _check_ladder(backends: list[Host], balancers: list[Host]) -> Iterator[Problem]:
    """Check that Nginx closes idle connections first; all other limits follow from an app's timeout."""
    name = "upstream_keepalive"
    for balancer, backend in product(balancers, backends):
        value = balancer.key("nginx_limits", name)
        lower, upper = _seconds(value), _seconds(backend.key("gunicorn_limits", "keepalive"))
        if lower is not None and upper is not None and lower >= upper:
            allowed = f"less than gunicorn_limits.keepalive, which is {upper:g}"
            yield problem(
                ("nginx_limits", name),
                f"is {show(value)}",
                f"{allowed} (Nginx must close idle connections first)",
                host=balancer.name,
            )
