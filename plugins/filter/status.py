"""Filters that say how a fleet is: what serves, who is in rotation, what Nginx runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.table import table

Status = dict[str, list[dict[str, Any]]]


def fleet_status(hostvars: Mapping[str, Any], backends: Sequence[str], balancers: Sequence[str]) -> Status:
    """Join what the hosts say.

    Args:
        hostvars: The variables of all hosts, with `gunicorn_listed` and `nginx_listed` as the roles of
            these names list it.
        backends: The backends.
        balancers: The balancers.

    Returns:
        `backends`, one mapping for each app of each backend: `app`, `host`, `release`, `slot`, `mark`, and
        `rotation` by balancer, as the role nginx lists it. `balancers`, one for each: `host`, `generation`,
        `current`, `health`, `certificates`. Where a host has no answer, `problem` says why.
    """
    said = {host: _said(hostvars[host].get("gunicorn_listed")) for host in backends}
    seen = {host: _said(hostvars[host].get("nginx_listed")) for host in balancers}
    members = {(app, host) for host, found in said.items() for app in found["apps"]}
    members |= {
        (app, host) for found in seen.values() for app in found["apps"] for host in found["apps"][app]
    }
    # A host without any information has a row, too.
    members |= {("-", host) for host in said if host not in {host for _, host in members}}
    rows = []
    for app, host in sorted(members):
        found = said.get(host) or {"apps": {}, "problem": "is not in the inventory"}
        views = {balancer: view["apps"].get(app, {}).get(host) for balancer, view in seen.items()}
        row = {"app": app, "host": host, **_release(found["apps"].get(app))}
        row["rotation"] = {balancer: view for balancer, view in views.items() if view}
        rows.append(row | {key: found[key] for key in ("problem",) if key in found})
    keys = ("generation", "current", "health", "certificates", "problem")
    nginx = [{"host": host, **{key: view[key] for key in keys if key in view}} for host, view in seen.items()]
    return {"backends": rows, "balancers": nginx}


def fleet_status_table(status: Status) -> str:
    """Show people how a fleet is.

    Args:
        status: What `fleet_status` returns.

    Returns:
        A table of the apps and one of the balancers.
    """
    apps: list[Sequence[object]] = [("app", "host", "release", "slot", "mark", "rotation", "why")]
    for row in status["backends"]:
        rotation, why = _rotation(row["rotation"])
        told = (row["release"] or "-", row["slot"] or "-", row["mark"] or "-", rotation)
        apps.append((row["app"], row["host"], *told, "; ".join(filter(None, [row.get("problem"), why]))))
    nginx: list[Sequence[object]] = [("balancer", "generation", "health checks", "certificates")]
    for row in status["balancers"]:
        if "problem" in row:
            nginx.append((row["host"], "-", "-", row["problem"]))
            continue
        generation = row["generation"] or "none runs"
        generation += "" if row["current"] else " (its file says other)"
        ends = [f"{path} until {end}" if end else f"{path}?" for path, end in row["certificates"].items()]
        nginx.append((row["host"], generation, "on" if row["health"] else "off", ", ".join(ends) or "-"))
    return f"{table(apps)}\n\n{table(nginx)}"


def _said(found: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not found or found.get("unreachable"):
        return {"apps": {}, "problem": "does not answer"}
    return {"apps": {}, "problem": str(found.get("msg"))} if found.get("failed") else found


def _release(app: Mapping[str, Any] | None) -> dict[str, str]:
    """Tell what serves, and what is thought of it."""
    app = app or {"now": "", "releases": []}
    marks = [one for one in app["releases"] if one["release"] == app["now"]]
    mark = "bad" if any(one["bad"] for one in marks) else "good" if any(one["good"] for one in marks) else ""
    return {"release": app["now"] or "", "slot": app.get("slot") or "", "mark": mark}


def _rotation(views: Mapping[str, Mapping[str, str]]) -> tuple[str, str]:
    """Say in words whether the balancers have a backend in rotation, and why not."""
    out = {balancer: view for balancer, view in views.items() if view["out"]}
    if not out:
        doubts = dict.fromkeys(view["why"] for view in views.values() if view.get("why"))
        return "in" if views else "-", "; ".join(doubts)
    where = "" if len(out) == len(views) else f" on {', '.join(out)}"
    kinds = " and ".join(sorted({view["out"] for view in out.values()}))
    words = [
        [
            view.get("why"),
            view.get("by"),
            "" if view["out"] == "unresolved" else f"since {view.get('since', '?')}",
        ]
        for view in out.values()
    ]
    return f"{kinds}{where}", "; ".join(dict.fromkeys(", ".join(filter(None, one)) for one in words))


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {"fleet_status": fleet_status, "fleet_status_table": fleet_status_table}
