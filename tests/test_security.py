"""What `make security` makes of what it finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.paddock.fleet.plugins.filter.security import (
    listening_ports,
    security_figures,
    security_table,
)

COMPLIANT = "    b1:443: OK - Compliant.\n"
SELF_SIGNED = """ Compliance against Mozilla TLS configuration

    b1:443: FAILED - Not compliant.
        * certificate_path_validation: Certificate path validation failed for CN=x.
"""
OLD = SELF_SIGNED + "        * tls_versions: TLS versions {'TLSv1'} are supported, but should be rejected.\n"

CLOSED: dict[str, Any] = {
    "secrets": [{"path": "/etc/paddock/shop/blue/environment.json", "fault": ""}],
    "locks": [{"path": "/run/paddock-slots.lock", "fault": ""}],
    "listens": [{"port": 22, "user": "root"}, {"port": 8080, "user": "root"}],
    "landlock": 7,
}


def host(
    ports: str, units: dict[str, float], audit: dict[str, Any] | None = None, **more: object
) -> dict[str, Any]:
    """What a host was found to be."""
    judged = [{"unit": f"{unit}.service", "exposure": str(value)} for unit, value in units.items()]
    found = {
        "__security_units": {"stdout": json.dumps(judged)},
        "__security_open": {"rc": 0, "stdout": ports},
        "__security_audit": {"stdout": json.dumps(audit or CLOSED)},
    }
    return found | {"apps": [{"name": "shop"}, {"name": "shut", "network": "none"}]} | more


def measured(figures: list[dict[str, Any]]) -> dict[str, tuple[object, bool]]:
    """What was measured, and whether it is good, by figure."""
    return {one["figure"]: (one["measured"], one["ok"]) for one in figures}


def test_listening_ports() -> None:
    """Those that only the host itself reaches do not count."""
    lines = [
        f"LISTEN 0 128 {address} 0.0.0.0:*"
        for address in (
            "0.0.0.0:22",
            "[::]:22",
            "*:80",
            "127.0.0.1:8098",
            "[::1]:25",
            "127.0.0.53%lo:53",
            "10.0.0.1:8",
        )
    ]
    assert listening_ports(lines) == [8, 22, 80]
    assert listening_ports(lines, loopback=True) == [8, 22, 25, 53, 80, 8098]


def test_host_metrics() -> None:
    """An app that may read the host's figures is named, where it runs."""
    apps = [{"name": "shop", "host_metrics": True}, {"name": "gone", "host_metrics": True}, {"name": "shut"}]
    found = host("22", {"shop-blue": 1.2, "shut-green": 0.6}, apps=apps)
    figures = measured(security_figures({"b1": found}, ["b1"], [], []))
    opened = {figure: value for figure, value in figures.items() if figure.startswith("sandbox")}
    assert opened == {"sandbox of shop": ("reads figures of the host", True)}


def test_exposures() -> None:
    """Each service has its target; those that are none of ours have none."""
    found = host("22", {"shop-blue": 1.6, "shut-green": 0.6, "nginx": 3.1, "nginx-health": 2.5, "ssh": 9.6})
    figures = measured(security_figures({"b1": found}, ["b1"], [], []))
    assert {name: figure for name, figure in figures.items() if name.startswith("exposure")} == {
        "exposure of shop-blue.service": (1.6, False),
        "exposure of shut-green.service": (0.6, True),
        "exposure of nginx.service": (3.1, False),
        "exposure of nginx-health.service": (2.5, True),
    }


@pytest.mark.parametrize(
    ("ports", "more", "good"),
    [
        ("22", {}, True),
        ("", {}, True),
        ("22 80", {}, False),
        ("22 80", {"__security_nginx": {"content": ""}}, True),
        ("22 80 443", {"__security_nginx": {"content": ""}}, False),
        (
            "22 8443",
            {
                "__security_nginx": {"content": ""},
                "nginx_certificate": {"file": "/x"},
                "nginx_tls": {"port": 8443},
            },
            True,
        ),
    ],
)
def test_ports(ports: str, more: dict[str, object], good: bool) -> None:
    """A backend has SSH open, a balancer what Nginx listens on, too."""
    assert (
        measured(security_figures({"b1": host(ports, {}, **more)}, ["b1"], [], []))["open ports"][1] == good
    )


def test_host_that_does_not_answer() -> None:
    """It is not taken for closed."""
    assert measured(security_figures({"b1": {}}, ["b1"], [], [])) == {"answers": ("no", False)}


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [
        ("[]", ("none", True)),
        ('[{"plugin": "ssrf"}, {"plugin": "origins"}]', ("ssrf, origins", False)),
        ("Traceback", ("gixy does not run", False)),
    ],
)
def test_gixy(stdout: str, expected: tuple[str, bool]) -> None:
    """Findings are named; a tool that is not there has found nothing, which is no good figure."""
    figures = security_figures({}, [], [{"item": "lb1", "stdout": stdout}, {"skipped": True}], [])
    assert measured(figures) == {"findings of gixy": expected}


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [
        (COMPLIANT, ("compliant", True)),
        (SELF_SIGNED, ("compliant, by an authority that is not known here", True)),
        (OLD, ("certificate_path_validation, tls_versions", False)),
        ("", ("sslyze does not run", False)),
    ],
)
def test_tls(stdout: str, expected: tuple[str, bool]) -> None:
    """Settings are judged, not who has signed."""
    figures = security_figures({}, [], [], [{"item": "lb1", "stdout": stdout}])
    assert measured(figures) == {"TLS, by sslyze": expected}


def test_table() -> None:
    """What misses its target is easy to see."""
    text = security_table(security_figures({"b1": host("22 25", {"nginx": 2.5})}, ["b1"], [], []))
    assert "MISSED" in next(line for line in text.splitlines() if line.startswith("open ports"))
    assert text.endswith("1 of 5 figures miss their target.")


def test_audit() -> None:
    """Files that others reach and ports of apps miss their targets, and are named."""
    figures = measured(security_figures({"b1": host("22", {})}, ["b1"], [], []))
    assert figures["secrets"] == ("1 files, all closed", True)
    assert figures["locks"] == ("1 files, all closed", True)
    assert figures["ports that apps opened"] == ("none", True)
    assert "Landlock" not in figures  # no app is here
    audit = {
        "landlock": 0,
        "secrets": [{"path": "/etc/paddock/tls/fleet.pem", "fault": "mode 0644"}, *CLOSED["secrets"]],
        "locks": [{"path": "/run/paddock-slots.lock", "fault": "mode 0644"}],
        "listens": [*CLOSED["listens"], {"port": 9000, "user": "shop"}, {"port": 25, "user": "mail"}],
    }
    figures = measured(security_figures({"b1": host("22", {"shop-blue": 1.2}, audit)}, ["b1"], [], []))
    assert figures["Landlock"] == ("none", False)
    assert figures["secrets"] == ("/etc/paddock/tls/fleet.pem: mode 0644", False)
    assert figures["locks"] == ("/run/paddock-slots.lock: mode 0644", False)
    assert figures["ports that apps opened"] == ("9000 by shop", False)
