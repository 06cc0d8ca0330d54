"""Filter that names the release of each app."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.paddock.fleet.plugins.plugin_utils.release import release_files, release_id

DOCUMENTATION = """
name: release_ids
short_description: Name the release of each app
description:
  - Maps each app's name to the release id of its folder, as the lookup C(release) tells it.
positional: _input, app_src
options:
  _input:
    description: The apps as in C(inventory/group_vars/all/apps.yml).
    type: list
    elements: dict
    required: true
  app_src:
    description: Folder with one folder an app.
    type: path
    required: true
"""

EXAMPLES = """
- name: Show what would be deployed
  ansible.builtin.debug:
    msg: "{{ apps | release_ids(playbook_dir + '/../app_src') }}"
"""

RETURN = """
_value:
  description: Release ids by the name of the app.
  type: dict
"""


def release_ids(apps: list[dict[str, Any]], app_src: str) -> dict[str, str]:
    """Name the release of each app.

    Args:
        apps: The apps as the inventory gives them.
        app_src: Folder with one folder an app.

    Returns:
        Release ids of 12 hexadecimal digits by app name.

    Raises:
        AnsibleError: A folder is missing, empty or holds what cannot be shipped.
    """
    return {
        app["name"]: release_id(release_files(Path(os.path.normpath(f"{app_src}/{app['name']}"))))
        for app in apps
    }


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters of this file."""
        return {"release_ids": release_ids}
