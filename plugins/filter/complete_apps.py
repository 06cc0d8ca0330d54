"""Filter that writes out what an app leaves to the defaults."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).resolve().parents[1] / "plugin_utils/fleet_rules/apps.schema.json"

DOCUMENTATION = """
name: complete_apps
short_description: Fill in the defaults of apps
description:
  - Returns the apps with every default of C(plugins/plugin_utils/fleet_rules/apps.schema.json) filled in.
  - The order of the apps and of their routes stays.
positional: _input
options:
  _input:
    description: The apps as in C(inventory/group_vars/all/apps.yml).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = """
- name: Show the time limit of each app
  ansible.builtin.debug:
    msg: "{{ (apps | complete_apps) | items2dict('name', 'timeout') }}"
"""

RETURN = """
_value:
  description: The same apps with all their keys.
  type: list
  elements: dict
"""


@cache
def _defaults(definition: str) -> dict[str, Any]:
    properties = json.loads(SCHEMA.read_text())["$defs"][definition]["properties"]
    return {key: spec["default"] for key, spec in properties.items() if "default" in spec}


def complete_apps(apps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the apps with every default of the schema filled in.

    Args:
        apps: The apps as the inventory gives them.

    Returns:
        New mappings in the same order; the arguments stay as they are.
    """

    def complete(given: dict[str, Any], definition: str) -> dict[str, Any]:
        return {**copy.deepcopy(_defaults(definition)), **given}

    return [
        {
            **complete(app, "app"),
            "routes": [complete(route, "route") for route in app.get("routes", [])],
        }
        for app in apps
    ]


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {"complete_apps": complete_apps}
