"""Filters that say how closed a fleet is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.table import table

# Systemd's judgement of a service: 0 is closed, 10 is open.
APP, SHUT_APP, NGINX, HEALTH = 1.5, 0.6, 3.0, 2.5
# The version that keeps the signals of a release from the one that replaces it (Linux 6.12).
LANDLOCK = 6
LOOPBACK = re.compile(r"127\.|\[?::1\]?$")

Figure = dict[str, Any]


def listening_ports(lines: Sequence[str], *, loopback: bool = False) -> list[int]:
    """Read what `ss` lists.

    Args:
        lines: Lines of `ss --no-header --listening --tcp --numeric`.
        loopback: Whether those count that listen on loopback alone.

    Returns:
        The ports, each once.
    """
    found = (line.split()[3].rpartition(":") for line in lines)
    return sorted({int(port) for address, _, port in found if loopback or not LOOPBACK.match(address)})


def security_figures(
    hostvars: Mapping[str, Any],
    hosts: Sequence[str],
    gixy: Sequence[Mapping[str, Any]],
    tls: Sequence[Mapping[str, Any]],
) -> list[Figure]:
    """Compare what was found with what is promised.

    Args:
        hostvars: The variables of all hosts, with what the playbook has registered.
        hosts: The hosts; those that did not answer are left out.
        gixy: Results of gixy, by balancer.
        tls: Results of sslyze, by balancer.

    Returns:
        A mapping for each figure: `figure`, `host`, `measured`, `target`, `ok`.
    """
    figures = []
    for host in hosts:
        found = hostvars[host]
        if found.get("__security_open", {}).get("rc") != 0:
            figures.append(_figure("answers", host, "no", "yes", ok=False))
            continue
        figures += _exposures(host, found)
        figures += _opened(host, found)
        figures.append(_ports(host, found))
        figures += _audit(host, found)
    figures += [_gixy(result) for result in gixy if not result.get("skipped")]
    figures += [_tls(result) for result in tls if not result.get("skipped")]
    return figures


def _figure(figure: str, host: str, measured: object, target: object, *, ok: bool) -> Figure:
    return {"figure": figure, "host": host, "measured": measured, "target": target, "ok": ok}


def _units(found: Mapping[str, Any]) -> dict[str, float]:
    """The exposure of each unit of a host."""
    return {unit["unit"]: float(unit["exposure"]) for unit in json.loads(found["__security_units"]["stdout"])}


def _slots(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The app of each unit that a slot may have."""
    return {
        f"{app['name']}-{slot}.service": app for app in found.get("apps", []) for slot in ("blue", "green")
    }


def _exposures(host: str, found: Mapping[str, Any]) -> Iterator[Figure]:
    units = _units(found)
    most = {"nginx.service": NGINX, "nginx-health.service": HEALTH}
    most |= {unit: APP if app.get("network") != "none" else SHUT_APP for unit, app in _slots(found).items()}
    for unit in sorted(units.keys() & most.keys()):
        yield _figure(
            f"exposure of {unit}", host, units[unit], f"at most {most[unit]}", ok=units[unit] <= most[unit]
        )


def _opened(host: str, found: Mapping[str, Any]) -> Iterator[Figure]:
    """Name the apps whose sandbox apps.yml opens; that is the user's choice, so it misses no target."""
    here = {app["name"]: app for unit, app in _slots(found).items() if unit in _units(found)}
    for app in here.values():
        if app.get("host_metrics", False):
            yield _figure(
                f"sandbox of {app['name']}", host, "reads figures of the host", "as apps.yml says", ok=True
            )


def _ports(host: str, found: Mapping[str, Any]) -> Figure:
    there = [int(port) for port in found["__security_open"]["stdout"].split()]
    allowed = {22}
    if "__security_nginx" in found and "content" in found["__security_nginx"]:
        allowed.add(int(found.get("nginx_port", 80)))
        if found.get("nginx_certificate", {}).get("file"):
            allowed.add(int(found.get("nginx_tls", {}).get("port", 443)))
    target = "at most " + ", ".join(map(str, sorted(allowed)))
    measured = ", ".join(map(str, there)) or "none"
    return _figure("open ports", host, measured, target, ok=set(there) <= allowed)


def _audit(host: str, found: Mapping[str, Any]) -> Iterator[Figure]:
    """Judge what playbooks/files/audit.py has found."""
    audit = json.loads(found["__security_audit"]["stdout"])
    for kind, target in (("secrets", "only root reads them"), ("locks", "only root opens them")):
        wrong = [f"{one['path']}: {one['fault']}" for one in audit[kind] if one["fault"]]
        measured = ", ".join(wrong) or f"{len(audit[kind])} files, all closed"
        yield _figure(kind, host, measured, target, ok=not wrong)
    if set(_slots(found)) & _units(found).keys():
        able = audit["landlock"]
        yield _figure("Landlock", host, able or "none", f"at least {LANDLOCK}", ok=able >= LANDLOCK)
    apps = {app["name"] for app in found.get("apps", [])}
    opened = [f"{one['port']} by {one['user']}" for one in audit["listens"] if one["user"] in apps]
    yield _figure("ports that apps opened", host, ", ".join(opened) or "none", "none", ok=not opened)


def _gixy(result: Mapping[str, Any]) -> Figure:
    try:
        found = [one["plugin"] for one in json.loads(result["stdout"])]
    except (KeyError, ValueError):
        found = ["gixy does not run"]
    return _figure("findings of gixy", result["item"], ", ".join(found) or "none", "none", ok=not found)


def _tls(result: Mapping[str, Any]) -> Figure:
    said = result.get("stdout", "")
    faults = re.findall(r"^ +\* ([a-z_]+):", said.partition("Mozilla")[2], re.MULTILINE)
    if "OK - Compliant" in said:
        measured = "compliant"
    # An unknown authority is no misconfiguration: this machine may not know it.
    elif set(faults) == {"certificate_path_validation"}:
        measured = "compliant, by an authority that is not known here"
    else:
        measured = ", ".join(faults) or "sslyze does not run"
    ok = measured.startswith("compliant")
    return _figure("TLS, by sslyze", result["item"], measured, "Mozilla intermediate", ok=ok)


def security_table(figures: Sequence[Figure]) -> str:
    """Show people how closed a fleet is.

    Args:
        figures: What `security_figures` returns.

    Returns:
        A table with a row a figure, and how many miss their target.
    """
    rows: list[Sequence[object]] = [("figure", "host", "measured", "target", "")]
    rows += [
        (one["figure"], one["host"], one["measured"], one["target"], "ok" if one["ok"] else "MISSED")
        for one in figures
    ]
    missed = sum(not one["ok"] for one in figures)
    return f"{table(rows)}\n\n{missed} of {len(figures)} figures miss their target."


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "listening_ports": listening_ports,
            "security_figures": security_figures,
            "security_table": security_table,
        }
