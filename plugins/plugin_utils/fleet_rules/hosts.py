"""Rules for the groups, the hosts and the variables that must fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from .apps import App
from .problem import BROKEN, Problem, did_you_mean, problem, show

_ADDRESS = "an IPv4 address, an IPv6 address without brackets or a host name"


@dataclass(frozen=True)
class Host:
    """A host with the values of the variables that the rules read.

    Attributes:
        name: The name in the inventory.
        values: Its variables, templates rendered, role defaults included.
        apps: Its sound apps with their defaults.
    """

    name: str
    values: Mapping[str, Any]
    apps: list[App]

    def key(self, variable: str, name: str) -> object:
        """Return a key of a variable that is a structure; BROKEN where that cannot be read."""
        structure = self.values.get(variable, {})
        return structure.get(name) if isinstance(structure, Mapping) else BROKEN


def check_group(group: str, groups: Mapping[str, list[str]]) -> Iterator[Problem]:
    """Check that a group has hosts.

    Args:
        group: The name of the group.
        groups: The hosts of each group.

    Yields:
        A problem if the group is missing or empty: Ansible would skip its plays in silence.
    """
    if groups.get(group):
        return
    there = sorted(groups.keys() - {"all", "ungrouped", group})
    state = "is empty" if group in groups else "is missing"
    listing = f"; the inventory has {', '.join(there) or 'no other groups'}"
    hint = did_you_mean(group, there)
    yield problem((), state, f"a group with at least one host{listing}{hint}", key=f"group {group}")


def check_hosts(backends: list[Host], balancers: list[Host], host_name: str) -> Iterator[Problem]:
    """Check the addresses, the batch and the shares of all hosts.

    Args:
        backends: The hosts that run the apps.
        balancers: The hosts that run Nginx.
        host_name: Pattern of a host name.

    Yields:
        A problem for each value that is wrong or does not fit to another one.
    """
    one_machine = len(balancers) == 1 and {host.name for host in backends} <= {balancers[0].name}
    for host in {host.name: host for host in [*backends, *balancers]}.values():
        yield from _check_address(host, host_name, loopback=one_machine)
        yield from _check_batch(host)
        if balancers:
            yield from _check_witnesses(host, {other.name for other in [*backends, *balancers]})
    for host in backends:
        yield from _check_monitors(host)
    for group in backends, balancers:
        yield from _check_twins(group)
    yield from _check_shares(backends)
    yield from _check_lookups(backends, balancers)
    for host in balancers:
        yield from _check_sources(host, host_name)
    yield from _check_virtual_ip(balancers, backends)


def _parse(address: object) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(address) if isinstance(address, str) else None
    except ValueError:
        return None


def _check_address(host: Host, host_name: str, *, loopback: bool) -> Iterator[Problem]:
    value = host.values.get("fleet_address", host.name)
    if value is BROKEN:
        return
    allowed = ""
    if parsed := _parse(value):
        if parsed.is_link_local or getattr(parsed, "scope_id", None):
            allowed = "an address that is not link-local"
        elif parsed.is_unspecified or parsed.is_multicast:
            allowed = "the address of one host"
    elif (
        not isinstance(value, str)
        or len(value) > 253
        or not re.search(host_name.replace("$", r"\Z"), value)
        or value.rpartition(".")[2].isdigit()
    ):
        allowed = _ADDRESS
    own = value == "localhost" or (parsed is not None and parsed.is_loopback)
    if own and not loopback:
        allowed = "an address that the other hosts reach (loopback only if there is no other host)"
    if allowed:
        yield _of(host, "fleet_address", allowed)


def _of(host: Host, name: str, allowed: str) -> Problem:
    value = host.values.get(name, host.name)
    return problem((name,), f"is {show(value)}", allowed, key=f"{name} of {host.name}", host=host.name)


def address_of(host: Host) -> object:
    """Return where the other hosts reach a host, in a form that can be compared."""
    value = host.values.get("fleet_address", host.name)
    return _parse(value) or (value.lower() if isinstance(value, str) else value)


def _check_twins(hosts: list[Host]) -> Iterator[Problem]:
    first: dict[str, Host] = {}
    for host in hosts:
        if (address := address_of(host)) is BROKEN:
            continue
        other = first.setdefault(str(address), host)
        if other is not host:
            yield _of(
                host,
                "fleet_address",
                f"an address of its own ({other.name} and {host.name} share it)",
            )


def _check_lookups(backends: list[Host], balancers: list[Host]) -> Iterator[Problem]:
    """Check that an app without a network need not look up who its balancers are."""
    closed = sorted(app["name"] for host in backends for app in host.apps if app.get("network") == "none")
    for balancer in balancers if closed else ():
        if isinstance(name := address_of(balancer), str) and name != "localhost":
            yield _of(balancer, "fleet_address", f"an IP address (network of {closed[0]} is none)")


def _check_sources(balancer: Host, host_name: str) -> Iterator[Problem]:
    value = balancer.values.get("fleet_sources", [])
    for index, one in enumerate(value if isinstance(value, list) else [value]):
        name = isinstance(one, str) and re.search(host_name.replace("$", r"\Z"), one)
        if value is not BROKEN and one is not BROKEN and not _parse(one) and not name:
            path = ("fleet_sources", index) if isinstance(value, list) else ("fleet_sources",)
            yield problem(path, f"is {show(one)}", f"a list, each {_ADDRESS}", host=balancer.name)


def _check_monitors(backend: Host) -> Iterator[Problem]:
    """Check who may connect to the apps' ports: systemd takes no names."""
    value = backend.values.get("fleet_monitors", [])
    for index, one in enumerate(value if isinstance(value, list) else [value]):
        if value is not BROKEN and one is not BROKEN and not (isinstance(value, list) and is_network(one)):
            path = ("fleet_monitors", index) if isinstance(value, list) else ("fleet_monitors",)
            allowed = "a list, each an address or a network such as 10.9.0.0/24, no host name"
            yield problem(path, f"is {show(one)}", allowed, host=backend.name)


def is_network(text: object) -> bool:
    """Tell whether a value is an address or a network without host bits."""
    try:
        return isinstance(text, str) and bool(ip_network(text))
    except ValueError:
        return False


def _check_virtual_ip(balancers: list[Host], backends: list[Host]) -> Iterator[Problem]:
    """Check the address that balancers share; keepalived takes addresses only, of one version."""
    name = "balancer_virtual_ip"
    there = [host for host in balancers if host.values.get(name, "") not in ("", BROKEN)]
    if not there:
        return
    for host in balancers:
        value, own = host.values.get(name, ""), address_of(host)
        parsed = _parse(value)
        allowed = ""
        if value is BROKEN or own is BROKEN:
            continue
        if parsed is None or parsed.is_loopback or parsed.is_link_local or parsed.is_multicast:
            allowed = "an IPv4 or an IPv6 address without a prefix, the same for all balancers"
        elif _parse(there[0].values[name]) not in (None, parsed):
            allowed = f"what {there[0].name} has ({there[0].values[name]})"
        elif len(balancers) < 2:
            allowed = "empty where there is one balancer: nothing could take over"
        elif taken := [other.name for other in [*balancers, *backends] if address_of(other) == parsed]:
            allowed = f"an address that no host has ({taken[0]} has it)"
        elif getattr(own, "version", 0) != parsed.version:
            allowed = f"an address of the version that fleet_address has, which is {show(str(own))}"
        if allowed:
            yield problem((name,), f"is {show(value)}", allowed, key=f"{name} of {host.name}", host=host.name)


def _check_batch(host: Host) -> Iterator[Problem]:
    value = host.values.get("deploy_serial", 1)
    for one in value if isinstance(value, list) and value else [value]:
        number = re.fullmatch(r"([1-9]\d*)(%?)", str(one))
        if one is not BROKEN and (not number or (number[2] and int(number[1]) > 100)):
            allowed = 'a whole number from 1, a share from "1%" to "100%", or a list of these'
            yield problem(("deploy_serial",), f"is {show(one)}", allowed, host=host.name)
    failures = host.values.get("fleet_max_failures", 0)
    if failures is not BROKEN and not re.fullmatch(r"\d+", str(failures)):
        allowed = "a whole number from 0"
        yield problem(("fleet_max_failures",), f"is {show(failures)}", allowed, host=host.name)


def _check_shares(backends: list[Host]) -> Iterator[Problem]:
    """Check weights, and that each app has a backend that is not kept in reserve."""
    for host in backends:
        weight, spare = host.values.get("fleet_weight", 1), host.values.get("fleet_backup", False)
        if weight is not BROKEN and not re.fullmatch(r"[1-9]\d{0,2}", str(weight)):
            yield _of(host, "fleet_weight", "a whole number from 1 to 999")
        if spare is not BROKEN and not isinstance(spare, bool):
            yield _of(host, "fleet_backup", "true or false")
    spares = [host for host in backends if host.values.get("fleet_backup") is True]
    for host in spares:
        for app in host.apps:
            name = app.get("name")
            if app.get("balance") in ("ip_hash", "random"):
                allowed = f"false, for {name} has balance: {app['balance']}, which knows no reserve"
                yield _of(host, "fleet_backup", allowed)
            elif not any(
                name == other.get("name") for each in backends if each not in spares for other in each.apps
            ):
                yield _of(host, "fleet_backup", f"false on at least one backend of {name}")


def _check_witnesses(host: Host, names: set[str]) -> Iterator[Problem]:
    value = host.values.get("fleet_lock_hosts", BROKEN)
    if value is not BROKEN and not (isinstance(value, list) and value and names.issuperset(value)):
        allowed = f"a list with at least one of {', '.join(sorted(names))}"
        yield problem(("fleet_lock_hosts",), f"is {show(value)}", allowed, host=host.name)
