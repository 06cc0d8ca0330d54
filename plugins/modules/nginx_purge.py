#!/usr/bin/python
"""Forget what a balancer has kept of the answers of apps."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nginx_purge
short_description: Forget kept answers
description:
  - For when other releases serve. Nginx needs no reload. An app of which nothing is kept is no error, nor is
    a host without Nginx.
options:
  apps: {description: Names of the apps., required: true, type: list, elements: str}
"""

EXAMPLES = r"""
- name: Forget what shop has answered
  nginx_purge:
    apps: [shop]
"""

RETURN = r"""
purged: {description: The apps of which something was kept., returned: success, type: list, elements: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.paddock.fleet.plugins.module_utils import nginx_cache as cache


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={"apps": {"type": "list", "elements": "str", "required": True}},
        supports_check_mode=True,
    )
    purged = cache.purge(module.params["apps"], dry=module.check_mode)
    module.exit_json(changed=bool(purged), purged=purged)


if __name__ == "__main__":
    main()
