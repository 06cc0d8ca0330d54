"""Lookup that finds the folder of the user's repository."""

from __future__ import annotations

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.paddock.fleet.plugins.plugin_utils.project import project_root

DOCUMENTATION = """
name: project
short_description: Find the folder of the user's repository
description:
  - Returns the folder around the inventory that holds C(app_src). Where none does, it is the folder that
    holds the inventory's folder.
options: {}
"""

EXAMPLES = """
- name: Show the folder
  ansible.builtin.debug:
    msg: "{{ lookup('paddock.fleet.project') }}"
"""

RETURN = """
_raw:
  description: The absolute path of the folder.
  type: list
  elements: path
"""


class LookupModule(LookupBase):
    """Ansible's entry point."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return the folder.

        Args:
            terms: Unused.
            variables: The variables of the host.
            **kwargs: Unused.

        Returns:
            One absolute path.
        """
        return [str(project_root((variables or {}).get("ansible_inventory_sources") or []))]
