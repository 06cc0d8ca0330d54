#!/usr/bin/python
"""Bring the apps of this host to a state: checked, serving, or as before a run."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gunicorn_slots
short_description: Apps under Gunicorn, each in two systemd slots behind one socket
description:
  - An app has a socket unit that holds its port and two slots, C(blue) and C(green), of which one
    serves. A slot is a plain service unit that names one release.
  - What serves is asked of systemd, which has it from the running process, never read off a file
    that says what should run. So a run that was killed at any point is finished by the next.
  - A release is first booted in a third slot, C(preflight), which has the same sandbox and a
    socket of its own only. The live slot is not touched unless that succeeds.
  - The app's user is made too, and its name refused if something else on the host goes by it.
  - The names of the apps that this module looks after are in C(/var/lib/paddock/apps.json). Nothing else in
    C(/etc/paddock) is touched.
  - One call at a time works on a host. What a killed run left behind on the host is waited for.
  - Each change, and each release that was refused, is a line of C(/var/lib/paddock/history.jsonl).
  - The action plugin of the same name fills in C(apps) and C(environments).
options:
  state:
    description:
      - C(checked) boots each release in the preflight slot and checks that it is ready. If an app has no
        live release yet, its release becomes live at once.
      - C(activated) checks what has not been checked, starts it in the idle slot, and stops the other slot
        when it is ready.
      - C(rolled_back) takes back what O(run) has changed on this host, with the slots from before. In check
        mode it tells what that would be.
      - C(stale_removed) stops the apps that are not in O(stay) and removes their units and their
        configuration; their releases stay.
      - C(listed) changes nothing and returns the releases of each app and the history of the host.
    choices: [checked, activated, rolled_back, stale_removed, listed]
    required: true
    type: str
  apps: {description: The apps as they should be., type: list, elements: dict}
  environments:
    description:
      - The environment of each app that has one, as JSON text by the app's name.
      - An option of its own. Ansible logs the text of O(apps), and would find a secret in there only where
        quoting has not changed it.
    type: dict
    default: {}
  stay: {description: Names of the apps of this host., type: list, elements: str}
  run: {description: Id of this run., type: str, default: ""}
  by: {description: Who runs it; for the history., type: str, default: ""}
  stop_first:
    description:
      - Whether the live release is stopped before the new one is checked and started, with every process of
        the app's user. The host answers no requests of the app meanwhile. With C(checked), nothing
        is booted then.
      - A release that was taken over could otherwise kill the one that is to replace it, where the kernel
        does not keep their signals apart (before Linux 6.12).
    type: bool
    default: false
  reason:
    description:
      - Why a release is marked as bad. With C(activated) it is the one that is left; empty leaves its mark.
      - With C(rolled_back) it is the one that the run has brought.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Check that the releases are ready
  paddock.fleet.gunicorn_slots:
    state: checked
    apps: "{{ gunicorn_apps | map(attribute='name') }}"
"""

RETURN = r"""
pending:
  description: Whether something is left to do until the apps serve as described.
  returned: when checked
  type: bool
leaving: {description: Apps of this host that are not in O(stay)., returned: when checked, type: list}
apps:
  description:
    - By the name of the app, C(before) and C(now) are release ids or null, C(seconds) is how long it took.
    - With C(listed) its C(releases), and by release id why each one in C(held) is held back.
  returned: always, unless exclusive
  type: dict
history: {description: Lines of the history., returned: when listed, type: list}
said: {description: What was done, for people., returned: always, type: list}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.paddock.fleet.plugins.module_utils import app_list, host_lock
from ansible_collections.paddock.fleet.plugins.module_utils.slots.transaction import HOST, Slots

DESCRIPTION = {
    "name": {"required": True},
    "release": {"required": True},
    "release_dir": {"type": "path", "required": True},
    "host": {"required": True},
    "health_path": {"required": True},
    "boot_timeout": {"type": "int", "required": True},
    "watch_seconds": {"type": "int", "required": True},
    "socket_unit": {"required": True},
    "clients": {"type": "list", "elements": "str", "required": True},
    "slot_unit": {"required": True},
    "config": {"required": True},
    "programs": {"type": "dict", "required": True},
}
STATES = ("checked", "activated", "rolled_back", "stale_removed")
LOCK = Path("/run/paddock-slots.lock")
# Longer than what a killed run left behind works on: a release may take minutes to be ready.
LOCK_SECONDS = 600


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "choices": ["checked", "activated", "rolled_back", "stale_removed", "listed"],
                "required": True,
            },
            "apps": {"type": "list", "elements": "dict", "options": DESCRIPTION},
            "environments": {"type": "dict", "default": {}, "no_log": True},
            "stay": {"type": "list", "elements": "str"},
            "run": {"default": ""},
            "by": {"default": ""},
            "stop_first": {"type": "bool", "default": False},
            "reason": {"default": ""},
        },
        required_if=[
            ("state", "checked", ["apps"]),
            ("state", "activated", ["apps"]),
            ("state", "stale_removed", ["stay"]),
        ],
        supports_check_mode=True,
    )
    if not module.check_mode and module.params["state"] != "listed":
        # A module whose run was killed works on for a while.
        try:
            host_lock.take(LOCK, LOCK_SECONDS)
        except host_lock.Held as problem:
            module.fail_json(msg=f"{HOST}: {problem}.")
        app_list.keep()
    slots = Slots(module)
    slots.refuse_taken()
    result = getattr(slots, module.params["state"])()
    module.exit_json(**result, said=slots.said, diff={"prepared": "".join(slots.diff)})


if __name__ == "__main__":
    main()
