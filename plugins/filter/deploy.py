"""Filters that report how a deploy went."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.table import table


def failures(hostvars: Mapping[str, Any]) -> list[str]:
    """Say why hosts failed.

    Args:
        hostvars: The variables of all hosts.

    Returns:
        One line a host that failed.
    """
    reasons = ((host, hostvars[host].get("__fleet_failure")) for host in hostvars)
    return [f"{host}: {_first_line(reason)}" for host, reason in reasons if reason]


def deploy_report(hostvars: Mapping[str, Any], hosts: Sequence[str], answering: Sequence[str]) -> str:
    """Say in what state each host is after a deploy that failed.

    Args:
        hostvars: The variables of all hosts.
        hosts: The hosts of the run.
        answering: Those that still answer.

    Returns:
        A table with a row for each app of each host, and what to do next.
    """
    told = {host: (hostvars[host].get("gunicorn_rolled_back") or {}) for host in hosts}
    names = {app for found in told.values() for app in found.get("apps", {})}
    reasons = {host: _by_app(str(hostvars[host].get("__fleet_failure") or ""), names) for host in hosts}
    changed = {
        app
        for found in told.values()
        for app, state in found.get("apps", {}).items()
        if state["tried"] or state["now"] != state["before"]
    }
    touched = sorted(changed | {app for reason in reasons.values() for app in reason} - {""})
    rows: list[Sequence[object]] = [("host", "app", "before", "now", "what happened")]
    for host in hosts:
        if host not in answering or told[host].get("unreachable"):
            rows.append((host, "-", "?", "?", reasons[host].get("") or "does not answer"))
            continue
        if "" in reasons[host]:
            rows.append((host, "-", "-", "-", reasons[host][""]))
        for app in touched:
            state = told[host].get("apps", {}).get(app)
            if state:
                what = reasons[host].get(app) or _outcome(state)
                rows.append((host, app, state["before"] or "-", state["now"] or "-", what))
    again = "Mend the cause and run the playbook again; it goes on from here."
    if any(state["tried"] for found in told.values() for state in found.get("apps", {}).values()):
        again += (
            "\nA release that was taken back is held back then: change the app, or say -e redeploy_bad=true."
        )
    return f"{table(rows)}\n\nThe run failed; the reasons in full are above. {again}"


def deploy_summary(
    hostvars: Mapping[str, Any],
    hosts: Sequence[str],
    held: Mapping[str, Mapping[str, str]],
    urls: Sequence[str],
    *,
    dry: bool = False,
) -> str:
    """Say what a run has brought.

    Args:
        hostvars: The variables of all hosts, with `gunicorn_checked` and `gunicorn_activated`.
        hosts: The hosts of the run.
        held: Apps that were held back, by name, with `release`, `stays` and `why`.
        urls: Where clients reach the fleet.
        dry: Whether nothing was changed, in check mode.

    Returns:
        A table with a row for each app of each host that has changed, what was held back, and the URLs.
    """
    rows: list[Sequence[object]] = [("host", "app", "before", "would be" if dry else "now", "s")]
    same = 0
    for host in hosts:
        apps: dict[str, dict[str, Any]] = {}
        for result in ("gunicorn_checked", "gunicorn_activated"):
            apps |= (hostvars[host].get(result) or {}).get("apps") or {}
        for app, state in sorted(apps.items()):
            if state["before"] == state["now"] and state["seconds"] is None:
                same += 1
                continue
            seconds = "-" if state["seconds"] is None else state["seconds"]
            rows.append((host, app, state["before"] or "-", state["now"] or "-", seconds))
    parts = [table(rows)] if len(rows) > 1 else []
    if same:
        parts.append(f"Unchanged: {same} of {same + len(rows) - 1} (each app on each backend counts).")
    for app, entry in sorted(held.items()):
        parts.append(
            f"{app} {entry['release']} is held back: {entry['why']}. {entry['stays']} serves.\n"
            "It is deployed when the app changes, or with -e redeploy_bad=true."
        )
    return "\n\n".join([*parts, "\n".join(urls)])


def changed_apps(variables: Mapping[str, Any]) -> list[str]:
    """Tell which apps the run has changed on a host.

    Args:
        variables: The variables of the host, with `gunicorn_checked` and `gunicorn_activated`.

    Returns:
        Their names; all of them where the host was lost while it changed them.
    """
    served = variables.get("gunicorn_activated") or {}
    apps = (variables.get("gunicorn_checked") or {}).get("apps") or {}
    if served.get("unreachable"):
        return sorted(apps)
    apps = {**apps, **(served.get("apps") or {})}
    return sorted(name for name, state in apps.items() if state["seconds"] is not None)


def switched_apps(hostvars: Mapping[str, Any], hosts: Sequence[str]) -> list[str]:
    """Tell of which apps the run has changed what serves, on any backend, also if it took that back.

    Args:
        hostvars: The variables of all hosts.
        hosts: The backends.

    Returns:
        Their names.
    """
    names = set()
    for host in hosts:
        returned = (hostvars[host].get("gunicorn_rolled_back") or {}).get("apps") or {}
        names |= {*changed_apps(hostvars[host]), *(name for name in returned if returned[name]["tried"])}
    return sorted(names)


def _by_app(failure: str, names: set[str]) -> dict[str, str]:
    """Say in a line what a message says of each app; what is said of none goes by an empty name."""
    parts: dict[str, list[str]] = {}
    app = ""
    for line in failure.splitlines():
        name = line.partition(" ")[0]
        app = name if name in names else app
        parts.setdefault(app, []).append(line)
    # What an exception says tells more than that a unit has failed.
    told = {}
    for app, lines in parts.items():
        exceptions = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        # Ansible's own words in front of those of a plugin.
        first = re.sub(r"^Task failed: (The \w+ plugin '\w+' failed: )?", "", lines[0])
        told[app] = ": ".join([first.partition(";")[0], *exceptions[-1:]])
    return told


def _outcome(state: Mapping[str, str | None]) -> str:
    if state["now"] != state["before"]:
        return "keeps the new release"
    return f"returned from {state['tried']}" if state["tried"] else "unchanged"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "changed_apps": changed_apps,
            "deploy_report": deploy_report,
            "deploy_summary": deploy_summary,
            "failures": failures,
            "switched_apps": switched_apps,
        }
