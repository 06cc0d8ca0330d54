#!/usr/bin/env python3
"""Write docs/settings.md: every setting, from the schema of apps.yml and the roles' own specs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/settings.md"
ROLES = ("python", "app", "gunicorn", "tls", "nginx", "keepalived", "firewall")


def cell(value: Any) -> str:
    """Show a value in a table."""
    return "`" + json.dumps(value, ensure_ascii=False).replace("|", "\\|") + "`"


def table(rows: list[tuple[str, ...]], *head: str) -> str:
    """Lay out rows below their head."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def of_schema(definition: dict[str, Any]) -> str:
    """The keys of an app or of a route."""
    return table(
        [
            (
                f"`{key}`",
                spec["title"],
                spec["description"],
                "**required**" if key in definition["required"] else cell(spec.get("default", "")),
            )
            for key, spec in definition["properties"].items()
        ],
        *("key", "meaning", "allowed", "default"),
    )


def of_role(role: str) -> str:
    """The variables of a role."""
    spec = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())["argument_specs"][
        "main"
    ]
    rows = [
        (f"`{name}`", option["description"], option["type"], cell(option["default"]))
        for name, option in spec["options"].items()
    ]
    return (
        f"### {role}: {spec['short_description']}\n\n{table(rows, 'variable', 'meaning', 'type', 'default')}"
    )


def of_fleet() -> str:
    """The variables of the whole fleet, with the comments above them."""
    rows, comment = [], []
    for line in (ROOT / "inventory/group_vars/all/fleet.yml").read_text().splitlines():
        if line.startswith("# "):
            comment.append(line[2:])
        elif line[:1].isalpha() or line.startswith("__"):
            name, _, value = line.partition(": ")
            if not line.startswith("__"):
                rows.append((f"`{name}`", " ".join(comment), "computed" if value == ">-" else f"`{value}`"))
            comment = []
    return table(rows, "variable", "meaning", "default")


def page() -> str:
    """The whole page."""
    schema = json.loads((ROOT / "inventory/apps.schema.json").read_text())["$defs"]
    roles = "\n".join(of_role(role) for role in ROLES)
    return f"""# Settings

Written by `make docs`. What is wrong with a setting is said before any host is contacted: file,
line, key, value and what is allowed.

## An app: an entry of `inventory/group_vars/all/apps.yml`

{of_schema(schema["app"])}
### A route of an app

{of_schema(schema["route"])}
From `timeout` follow the other time limits of a request's path: Gunicorn ends it after that many
seconds and grants 5 more on a stop, systemd 15 more, Nginx waits 5 more for the answer.

## The fleet: `inventory/group_vars/all/fleet.yml`, or a host in the inventory

{of_fleet()}
## The roles

Set them in `inventory/group_vars/backends.yml` or `inventory/group_vars/balancers.yml`. What the roles
are told of the apps and of each other is in `inventory/group_vars/all/roles.yml`.

{roles}"""


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
