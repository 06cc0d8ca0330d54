#!/usr/bin/env python3
"""Write docs/settings.md and the tables in the roles' READMEs, from the schema of the apps and the specs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/settings.md"
ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))


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


def rows(options: dict[str, Any], structure: str = "") -> Iterator[tuple[str, ...]]:
    """The variables of a specification, each structure followed by its keys."""
    for name, option in options.items():
        keys = option.get("options", {})
        default = (
            cell(option["default"]) if "default" in option else "that of each key" if keys else "see there"
        )
        yield f"`{structure}{name}`", option["description"], option["type"], default
        yield from rows(keys, f"{structure}{name}.")


def of_options(options: dict[str, Any]) -> str:
    """The table of the variables of a specification."""
    return table([*rows(options)], "variable", "meaning", "type", "default")


def of_role(role: Path) -> tuple[str, str]:
    """What a role does, and the table of its variables."""
    spec = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]
    return spec["short_description"], of_options(spec["options"])


def readme(role: Path) -> str:
    """The README of a role with a current table."""
    text = (role / "README.md").read_text()
    head, _, rest = text.partition("## Variables\n")
    after = re.sub(r"^\n(\|[^\n]*\n)+", "", rest)
    return f"{head}## Variables\n\n{of_role(role)[1]}{after}"


def page() -> str:
    """The whole page."""
    schema = json.loads((ROOT / "plugins/plugin_utils/fleet_rules/apps.schema.json").read_text())["$defs"]
    roles = "\n".join("### {}: {}\n\n{}".format(role.name, *of_role(role)) for role in ROLES)
    fleet = yaml.safe_load((ROOT / "meta/fleet_variables.yml").read_text())["options"]
    return f"""# Settings

Written by `make docs`. Invalid settings are reported before any host is contacted: file, line, key,
value and what is allowed.

## An app: an entry of `inventory/group_vars/all/apps.yml`

{of_schema(schema["app"])}
### A route of an app

{of_schema(schema["route"])}
The other time limits of a request follow from `timeout`: Gunicorn ends the request after that many
seconds and grants 5 more on a stop, systemd 15 more, and Nginx waits 5 more for the answer.

## The fleet: in `inventory/group_vars/`, or for a host in the inventory

{of_options(fleet)}
## The roles

Set them in `inventory/group_vars/backends.yml` or `inventory/group_vars/balancers.yml`. Inputs that the
playbooks compute from the apps and the inventory are in `playbooks/group_vars/all/roles.yml`.

{roles}"""


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    for role in ROLES:
        (role / "README.md").write_text(readme(role))
