"""Filters that join the histories of hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.table import table


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


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {
            "history": history,
            "history_table": history_table,
        }
