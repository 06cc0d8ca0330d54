#!/usr/bin/python
"""Take a backend out of rotation by hand, or put it back; or tell who is in."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nginx_rotation
short_description: Take a backend out of rotation
description:
  - Who is out by hand stays so through every run, reload and reboot, until someone puts it back.
  - Nginx runs the change when the module is done. If it does not, nothing has changed and the module fails.
options:
  state:
    description:
      - C(out) takes the backend out with all of its apps, unless it is the last one of an app.
      - C(in) puts it back. It stays out while its health is bad.
      - C(listed) changes nothing.
    choices: [in, out, listed]
    required: true
    type: str
  host: {description: Inventory name of the backend., type: str}
  backends: {description: Inventory names of all backends., type: list, elements: str, default: []}
  why: {description: For others to read., type: str, default: ""}
  by: {description: Who takes it out., type: str, default: ""}
"""

EXAMPLES = r"""
- name: Take app1 out of rotation
  nginx_rotation:
    state: out
    host: app1
    backends: [app1, app2]
    why: disk is replaced
"""

RETURN = r"""
apps:
  description:
    - Of each app and backend by what it is C(out) of rotation, C(hand), C(health) or C(name); empty
      if it is in.
    - Of those that are out, C(why), C(since) and C(by) whom. Of those that are in, C(why) something is wrong.
  returned: when listed
  type: dict
generation: {description: What the running Nginx answers with., returned: when listed, type: str}
current: {description: Whether that is what the file says., returned: when listed, type: bool}
health: {description: Whether health checks run., returned: when listed, type: bool}
certificates: {description: When each certificate ends, by its path., returned: when listed, type: dict}
"""

import contextlib
import time

from ansible.module_utils import nginx_host as nginx
from ansible.module_utils import nginx_names as names
from ansible.module_utils.basic import AnsibleModule


def last_of(host, text):
    """Tell which apps nobody else has in rotation; returns a line for each."""
    hand, health = nginx.recall(nginx.HAND), nginx.recall(nginx.HEALTH)
    lost = {out: {"why": "its name has no address", "since": "a run"} for out in nginx.out_by_name(text)}
    lines = []
    for app, pool in nginx.pools(text).items():
        others = {
            backend: hand.get(backend) or health.get(app, {}).get(backend) or lost.get((app, backend))
            for backend in pool
            if backend != host
        }
        if host in pool and all(others.values()):
            reasons = [
                f"{backend} is out since {entry['since']}: {entry['why'] or 'by hand'}"
                for backend, entry in others.items()
            ]
            lines.append(
                f"{host} is the last one that serves {app} ({'; '.join(reasons) or 'there is no other'})"
            )
    return lines


def rotate(module):
    """Write down what is asked for, and have Nginx do it; returns whether it changed anything."""
    host, state = module.params["host"], module.params["state"]
    hand = nginx.recall(nginx.HAND)
    known = sorted({*module.params["backends"], *(hand if state == "in" else [])})
    if host not in known:
        raise nginx.Refused(f"host is {host!r}; allowed: {', '.join(known)}. Nothing was changed.")
    if (host in hand) == (state == "out"):
        return False
    wanted = {backend: entry for backend, entry in hand.items() if backend != host}
    if state == "out":
        if lines := last_of(host, nginx.installed()):
            raise nginx.Refused("\n".join([*lines, "Nothing was changed."]))
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        wanted[host] = {"by": module.params["by"], "since": since, "why": module.params["why"]}
    if not module.check_mode:
        nginx.remember(nginx.HAND, wanted)
        try:
            if not nginx.in_effect():
                nginx.reload()
        except nginx.Refused:
            nginx.remember(nginx.HAND, hand)
            raise
    return True


def doubt(name, addresses, found):
    """Say what is wrong with the name of a backend, if it has one and something is."""
    address, problem = found.get(name, ("", ""))
    has = addresses.get(name, "")
    if problem:
        return {"why": f"{problem}; its last address is {has}" if has else problem}
    if address != has:
        return {"why": f"{name} is {address} now, and Nginx has {has or 'no address'} until the next run"}
    return {}


def listed():
    """Tell who is in, as the file of Nginx has it, and what runs."""
    text = nginx.installed()
    hand, health = nginx.recall(nginx.HAND), nginx.recall(nginx.HEALTH)
    addresses = names.known(text)
    found = names.look_up(names.names(text), addresses)
    lost = nginx.out_by_name(text)
    apps = {}
    for _, app, server in nginx.servers(text):
        backend, entry = server[3], {"out": "", **doubt((server[4] or "").strip(" ()"), addresses, found)}
        if server[2] and backend in hand:
            entry = {"out": "hand", **hand[backend]}
        elif (app, backend) in lost:
            entry["out"] = "name"
        elif server[2]:
            entry = {"out": "health", **health.get(app, {}).get(backend, {})}
        apps.setdefault(app, {})[backend] = entry
    return {
        "apps": apps,
        "generation": nginx.running(text) or "",
        "current": nginx.in_effect(),
        "health": nginx.run("systemctl", "is-active", "nginx-health.service").rc == 0,
        "certificates": {str(path): nginx.expiry(path) for path in nginx.certificates(text)},
    }


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["in", "out", "listed"], "required": True},
            "host": {},
            "backends": {"type": "list", "elements": "str", "default": []},
            "why": {"default": ""},
            "by": {"default": ""},
        },
        required_if=[("state", "in", ["host"]), ("state", "out", ["host"])],
        supports_check_mode=True,
    )
    reads = module.check_mode or module.params["state"] == "listed"
    try:
        with contextlib.nullcontext() if reads else nginx.alone():
            found = listed() if module.params["state"] == "listed" else {"changed": rotate(module)}
    except nginx.Refused as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(**found)


if __name__ == "__main__":
    main()
