"""Filters that say how a deploy went and choose where a rollback goes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Ansible gives the plugins of a repository no way to import a package next to them.
sys.path.append(str(Path(__file__).parents[1]))

from fleet_rules.table import table


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
    told = {host: (hostvars[host].get("gunicorn_returned") or {}) for host in hosts}
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
        hostvars: The variables of all hosts, with `gunicorn_proved` and `gunicorn_served`.
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
        for result in ("gunicorn_proved", "gunicorn_served"):
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


def rollback_target(
    hostvars: Mapping[str, Any], hosts: Sequence[str], app: str = "", release: str = ""
) -> dict[str, Any]:
    """Choose what to roll back to, from the releases that the hosts have.

    Args:
        hostvars: The variables of all hosts, with `gunicorn_listed` as the role gunicorn lists it.
        hosts: The backends.
        app: Name of the app; empty for those that the last deploy changed.
        release: Release id; empty for the last good one that is not serving.

    Returns:
        `releases`, ids by the name of the app, and `says`, what will be done. Where nothing can be
        chosen, `problem` says why.
    """
    listed = {host: hostvars[host]["gunicorn_listed"] for host in hosts}
    names = sorted(set.intersection(*(set(found["apps"]) for found in listed.values())))
    if not names or (app and app not in names):
        allowed = ", ".join(names) or "none, for no app serves on every backend"
        return _refuse(f"app is {app!r}; allowed: {allowed}" if app else f"apps to roll back: {allowed}")
    asked = [app] if app else names
    target = {}
    if release:
        target = {name: release for name in asked if release in _on_all(listed, name, good=False)}
        if not target:
            return _refuse(f"release is {release!r}; allowed: one that every backend has", listed, asked)
    else:
        for name in [app] if app else _last_changed(listed, names):
            serving = {found["apps"][name]["now"] for found in listed.values()}
            good = [one for one in _on_all(listed, name, good=True) if serving != {one}]
            if not good:
                return _refuse(f"{name} has no other good release that every backend has", listed, [name])
            target[name] = good[0]
    says = [
        f"{name} on {host}: {found['apps'][name]['now']} -> {to}"
        for name, to in target.items()
        for host, found in listed.items()
        if found["apps"][name]["now"] != to
    ]
    served = [f"{name} serves {to} on every backend already" for name, to in target.items()]
    return {"releases": target, "says": says or served}


def _refuse(
    problem: str, listed: Mapping[str, Any] | None = None, names: Sequence[str] = ()
) -> dict[str, Any]:
    """Refuse to choose, with what there is to choose from."""
    offer = "\n".join(_offer(listed or {}, name) for name in names)
    return {"problem": f"{problem}. Nothing was changed.\n{offer}".strip()}


def _last_changed(listed: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Apps that the last deploy brought to a release, on any backend."""
    lines = [line for found in listed.values() for line in found["history"]]
    lines = [line for line in lines if line["outcome"] == "serves" and line["app"] in names]
    # Settings that changed brought no release.
    lines = [line for line in lines if line.get("from") != line.get("to")]
    if not lines:
        return list(names)
    last = max(lines, key=lambda line: line["when"])["run"]
    return sorted({line["app"] for line in lines if line["run"] == last})


def _on_all(listed: Mapping[str, Any], name: str, *, good: bool) -> list[str]:
    """Releases that every backend has, the last that was marked as good first."""
    marked: dict[str, list[float]] = {}
    for found in listed.values():
        for one in found["apps"][name]["releases"]:
            if one["good"] is not None or not good:
                marked.setdefault(one["release"], []).append(one["good"] or 0)
    everywhere = [release for release, times in marked.items() if len(times) == len(listed)]
    return sorted(everywhere, key=lambda release: max(marked[release]), reverse=True)


def _offer(listed: Mapping[str, Any], name: str) -> str:
    """The releases of an app on each backend, as a table."""
    rows: list[Sequence[object]] = [("host", "app", "release", "state")]
    for host, found in listed.items():
        for one in found["apps"][name]["releases"]:
            state = "good" if one["good"] else "never served"
            if one["bad"]:
                state = f"bad: {_first_line(one['bad'])}"
            if one["release"] == found["apps"][name]["now"]:
                state = "serves"
            rows.append((host, name, one["release"], state))
    return table(rows)


def history_table(hostvars: Mapping[str, Any], hosts: Sequence[str], lines: int = 20) -> str:
    """Join the histories of hosts.

    Args:
        hostvars: The variables of all hosts, with `gunicorn_listed` as the role gunicorn lists it.
        hosts: The backends.
        lines: How many of the last lines to show.

    Returns:
        A table, the newest line last.
    """
    rows = [("when (UTC)", "host", "app", "from", "to", "outcome", "s", "who")]
    for line in history(hostvars, hosts)[-lines:]:
        when = line["when"].replace("T", " ").removesuffix("+00:00")
        releases = (line["from"] or "-", line["to"] or "-")
        done = (line["outcome"], str(line["seconds"]), line["who"] or "-")
        rows.append((when, line["host"], line["app"], *releases, *done))
    return table(rows) if len(rows) > 1 else "no deploy yet"


def history(hostvars: Mapping[str, Any], hosts: Sequence[str]) -> list[dict[str, Any]]:
    """Join the histories of hosts.

    Args:
        hostvars: The variables of all hosts, with `gunicorn_listed` as the role gunicorn lists it.
        hosts: The backends.

    Returns:
        One mapping a change: `when`, `host`, `who`, `run`, `app`, `from`, `to`, `outcome`, `seconds`.
    """
    found = [
        {**line, "host": host} for host in hosts for line in hostvars[host]["gunicorn_listed"]["history"]
    ]
    return sorted(found, key=lambda line: line["when"])


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "deploy_report": deploy_report,
            "deploy_summary": deploy_summary,
            "failures": failures,
            "history": history,
            "history_table": history_table,
            "rollback_target": rollback_target,
        }
