#!/usr/bin/python
"""Drain a backend, or put it back; or tell the state of all backends."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nginx_drain
short_description: Drain a backend
description:
  - A drained backend gets no new requests. It stays drained through every run, reload and reboot.
  - Nginx runs the change when the module is done. If it does not, nothing has changed and the module fails.
options:
  state:
    description:
      - C(drained) takes the backend out with all of its apps, unless it is the last one of an app.
      - C(undrained) puts it back. While it is unhealthy, it gets no requests.
      - C(listed) changes nothing.
    choices: [drained, undrained, listed]
    required: true
    type: str
  host: {description: Inventory name of the backend., type: str}
  backends: {description: Inventory names of all backends., type: list, elements: str, default: []}
  why: {description: For others to read., type: str, default: ""}
  by: {description: The person who drains it., type: str, default: ""}
"""

EXAMPLES = r"""
- name: Drain app1
  paddock.fleet.nginx_drain:
    state: drained
    host: app1
    backends: [app1, app2]
    why: disk is replaced
"""

RETURN = r"""
apps:
  description:
    - Of each app and backend why it is C(out) of the pool, C(drained), C(unhealthy) or C(unresolved); empty
      if it is in.
    - Of those that are out, C(why), C(since) and C(by). Of those that are in, C(why) if there is a warning.
  returned: when listed
  type: dict
generation: {description: The answer of the running Nginx., returned: when listed, type: str}
current: {description: Whether that is the generation of the file., returned: when listed, type: bool}
health: {description: Whether health checks run., returned: when listed, type: bool}
certificates: {description: The end of each certificate by its path., returned: when listed, type: dict}
"""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.paddock.fleet.plugins.module_utils import nginx_host as nginx
from ansible_collections.paddock.fleet.plugins.module_utils import nginx_names as names
from ansible_collections.paddock.fleet.plugins.module_utils import nginx_pool


def last_of(host: str) -> list[str]:
    """Return a line for each app of which no other backend is in the pool."""
    wanted = nginx_pool.wanted()
    drained, health = nginx_pool.recall(nginx_pool.DRAINED), nginx_pool.recall(nginx_pool.HEALTH)
    lost = {
        out: {"why": "its name has no address", "since": "a run"} for out in nginx_pool.out_by_name(wanted)
    }
    lines = []
    for app, pool in wanted.pools.items():
        others = {
            backend: drained.get(backend) or health.get(app, {}).get(backend) or lost.get((app, backend))
            for backend in pool
            if backend != host
        }
        if host in pool and all(others.values()):
            reasons = [
                f"{backend} is out since {entry['since']}: {entry['why'] or 'drained'}"
                for backend, entry in others.items()
            ]
            lines.append(
                f"{host} is the last healthy backend of {app} ({'; '.join(reasons) or 'there is no other'})"
            )
    return lines


def drain(module: AnsibleModule) -> bool:
    """Note the wanted state and reload Nginx; returns whether there was a change."""
    host, state = module.params["host"], module.params["state"]
    drained = nginx_pool.recall(nginx_pool.DRAINED)
    known = sorted({*module.params["backends"], *(drained if state == "undrained" else [])})
    if host not in known:
        raise nginx_pool.Refused(f"host is {host!r}; allowed: {', '.join(known)}. Nothing was changed.")
    if (host in drained) == (state == "drained"):
        return False
    wanted = {backend: entry for backend, entry in drained.items() if backend != host}
    if state == "drained":
        if lines := last_of(host):
            raise nginx_pool.Refused("\n".join([*lines, "Nothing was changed."]))
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        wanted[host] = {"by": module.params["by"], "since": since, "why": module.params["why"]}
    if not module.check_mode:
        nginx_pool.remember(nginx_pool.DRAINED, wanted)
        try:
            if not nginx.in_effect():
                nginx.reload()
        except nginx_pool.Refused:
            nginx_pool.remember(nginx_pool.DRAINED, drained)
            raise
    return True


def doubt(address: str, addresses: Mapping[str, str], found: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return a warning about the name of a backend, if there is one."""
    now, problem = found.get(address, ("", ""))
    has = addresses.get(address, "")
    if problem:
        return {"why": f"{problem}; its last address is {has}" if has else problem}
    if now != has:
        return {"why": f"{address} is {now} now, and Nginx has {has or 'no address'} until the next run"}
    return {}


def listed() -> dict[str, Any]:
    """Return the state of the backends, and what runs."""
    wanted = nginx_pool.wanted()
    drained, health = nginx_pool.recall(nginx_pool.DRAINED), nginx_pool.recall(nginx_pool.HEALTH)
    found = names.look_up(wanted.names, wanted.addresses)
    lost, out = nginx_pool.out_by_name(wanted), nginx_pool.out_of_rotation(wanted)
    apps = {}
    for app, pool in wanted.pools.items():
        for backend, address in pool.items():
            entry = {"out": "", **doubt(address, wanted.addresses, found)}
            if backend in drained:
                entry = {"out": "drained", **drained[backend]}
            elif (app, backend) in lost:
                entry["out"] = "unresolved"
            elif (app, backend) in out:
                entry = {"out": "unhealthy", **health.get(app, {}).get(backend, {})}
            apps.setdefault(app, {})[backend] = entry
    return {
        "apps": apps,
        "generation": nginx.running() or "",
        "current": nginx.in_effect(),
        "health": nginx.run("systemctl", "is-active", "nginx-health.service").rc == 0,
        "certificates": {path: nginx.expiry(path) for path in wanted.certificates},
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["drained", "undrained", "listed"], "required": True},
            "host": {},
            "backends": {"type": "list", "elements": "str", "default": []},
            "why": {"default": ""},
            "by": {"default": ""},
        },
        required_if=[("state", "drained", ["host"]), ("state", "undrained", ["host"])],
        supports_check_mode=True,
    )
    reads = module.check_mode or module.params["state"] == "listed"
    try:
        with contextlib.nullcontext() if reads else nginx_pool.alone():
            found = listed() if module.params["state"] == "listed" else {"changed": drain(module)}
    except nginx_pool.Refused as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(**found)


if __name__ == "__main__":
    main()
