#!/usr/bin/python
"""Hold a fleet's lock on one host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fleet_lock
short_description: One deploy at a time
description:
  - The lock is a file on a balancer that names who deploys. It expires when it was not renewed for
    the O(seconds) of the run that took it, by this host's clock alone.
  - A run that takes over the lock of a dead one also takes its id, and so goes on with its deploy.
  - The action plugin of the same name says who the run is, and whether a holder on its own machine lives.
options:
  state:
    description:
      - C(taken) takes the lock, or fails and names the holder.
      - C(released) gives it back, if it is still this run's.
      - C(removed) takes it from whoever holds it.
    choices: [taken, released, removed]
    required: true
    type: str
  run: {description: Id of the run., type: str, default: ""}
  holder: {description: What to tell others about the run., type: dict, default: {}}
  dead: {description: Id of a run that is known to be dead., type: str, default: ""}
  seconds:
    description: When the lock of this run expires, if it is not renewed. Longer than any of its steps.
    type: int
    default: 900
"""

EXAMPLES = r"""
- name: Take the lock
  fleet_lock:
    state: taken
"""

RETURN = r"""
run: {description: Id under which the run goes on., returned: when taken, type: str}
holder: {description: Who holds or held the lock., returned: when there is one, type: dict}
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.paddock.fleet.plugins.module_utils.host_lock import Held, take

LOCK = Path("/var/lib/paddock/deploy.lock")
GUARD = LOCK.with_suffix(".guard")
# Each call holds the guard for milliseconds.
PATIENCE = 10.0


def read() -> dict[str, Any] | None:
    """Who holds the lock; None if it is free, or if a power failure has cut the file."""
    try:
        return {**json.loads(LOCK.read_text(encoding="utf-8")), "renewed": LOCK.stat().st_mtime}
    except (OSError, ValueError):
        return None


def write(content: dict[str, Any]) -> None:
    """Write the lock, whole or not at all."""
    part = LOCK.with_suffix(".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    part.replace(LOCK)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["taken", "released", "removed"], "required": True},
            "run": {"default": ""},
            "holder": {"type": "dict", "default": {}},
            "dead": {"default": ""},
            "seconds": {"type": "int", "default": 900},
        },
        supports_check_mode=True,
    )
    state, run = module.params["state"], module.params["run"]
    if module.check_mode:
        module.exit_json(changed=False, run=run)
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    try:
        take(GUARD, PATIENCE)
    except Held as problem:
        module.fail_json(msg=f"{problem}. Nothing was changed.")
    holder = read()
    if state == "taken":
        if holder and holder["run"] != run:
            age = time.time() - holder["renewed"]
            left = holder.get("seconds", 900) - age
            if holder["run"] != module.params["dead"] and left > 0:
                module.fail_json(msg="the lock is held", holder=holder, expires_in=int(left))
            run = holder["run"]
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        mine = {"run": run, "seconds": module.params["seconds"]}
        write({"since": since, **module.params["holder"], **mine})
        module.exit_json(changed=False, run=run, holder=holder)
    if holder and (state == "removed" or holder["run"] == run):
        LOCK.unlink()
    # A run's own lock is gone when it ends, so it is no change.
    module.exit_json(changed=bool(holder) and state == "removed", holder=holder)


if __name__ == "__main__":
    main()
