"""Filter that chooses the target of a rollback from the releases of the hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.table import table


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
                state = f"bad: {one['bad'].strip().splitlines()[0]}"
            if one["release"] == found["apps"][name]["now"]:
                state = "serves"
            rows.append((host, name, one["release"], state))
    return table(rows)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "rollback_target": rollback_target,
        }
