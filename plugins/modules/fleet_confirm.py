#!/usr/bin/python
"""Ask a backend, from a balancer, whether it serves what it should."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fleet_confirm
short_description: See a backend's releases through the balancer
description:
  - Asks Nginx on this balancer for the health path of each app, with Nginx's own status server, which
    passes it on to that one backend as it passes on what clients ask.
  - Where Nginx does not know the backend yet, or is not there yet, asks the backend itself.
  - Renews the deploy's lock.
options:
  backend: {description: Inventory name of the backend., type: str, required: true}
  address: {description: Address of the backend., type: str, required: true}
  ports: {description: Port of each app by its name., type: dict, required: true}
  health_paths: {description: Health path of each app by its name., type: dict, required: true}
  server_names: {description: Names of each app by its name., type: dict, required: true}
  releases: {description: Release id of each app by its name., type: dict, required: true}
  status_port: {description: Loopback port of Nginx's status server., type: int, required: true}
  seconds: {description: How long an app may take to answer as it should., type: int, default: 5}
"""

EXAMPLES = r"""
- name: Confirm the releases of app1
  fleet_confirm:
    backend: app1
    address: 10.0.0.11
    ports: {requestme: 8080}
    health_paths: {requestme: /readyz}
    server_names: {requestme: []}
    releases: {requestme: 3f2a9c1e77b0}
    status_port: 8099
  delegate_to: lb1
"""

RETURN = r"""
confirmed: {description: What was asked, by the name of the app., returned: success, type: dict}
"""

import http.client
import os
import re
import socket
import time

from ansible.module_utils.basic import AnsibleModule

LOCK = "/var/lib/paddock/deploy.lock"


def ask(address: str, port: int, path: str, name: str) -> tuple[int, str]:
    """GET as the balancer sends it for https; returns status and body, raises OSError or HTTPException."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", path, headers={"Host": name, "X-Forwarded-Proto": "https"})
        response = connection.getresponse()
        text = re.sub(r"<[^>]*>", " ", response.read(65536).decode("utf-8", "replace"))
        return response.status, " ".join(text.split())[:200]
    finally:
        connection.close()


def confirm(p: dict, app: str) -> tuple[str, str]:
    """Ask for one app; returns the URL and what is wrong with the answer, which is empty if all is well."""
    release = p["releases"][app]
    name = (p["server_names"][app] or ["localhost"])[0]
    path = p["health_paths"][app]
    through = ("127.0.0.1", p["status_port"], f"/backends/{app}/{p['backend']}")
    direct = (p["address"], int(p["ports"][app]), path)
    url = ""
    for address, port, asked in (through, direct):
        url = f"http://{address}:{port}{asked}"
        try:
            status, body = ask(address, port, asked, name)
        except (OSError, http.client.HTTPException) as error:
            if (address, port, asked) == through:
                continue  # Nginx is not there yet
            return url, str(error) or type(error).__name__
        if status == 404 and (address, port, asked) == through:
            continue  # or does not know the backend yet
        if status != 200:
            return url, f"status {status}, want 200 (sent: Host: {name}, X-Forwarded-Proto: https): {body}"
        if release not in body:
            return url, f"the answer does not name the release {release}: {body}"
        return url, ""
    return url, "no answer"


def main() -> None:
    """Run as an Ansible module."""
    dicts = ("ports", "health_paths", "server_names", "releases")
    module = AnsibleModule(
        argument_spec={
            "backend": {"required": True},
            "address": {"required": True},
            **{name: {"type": "dict", "required": True} for name in dicts},
            "status_port": {"type": "int", "required": True},
            "seconds": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    p = module.params
    if module.check_mode:
        module.exit_json(changed=False)
    if os.path.exists(LOCK):
        os.utime(LOCK)
    confirmed = {}
    for app in sorted(p["releases"]):
        deadline = time.monotonic() + p["seconds"]
        while True:
            url, problem = confirm(p, app)
            if not problem:
                confirmed[app] = url
                break
            if time.monotonic() > deadline:
                whom = f"{app} on {p['backend']} is not confirmed by {socket.gethostname()}"
                module.fail_json(msg=f"{whom}: GET {url}: {problem}")
            time.sleep(0.2)
    module.exit_json(changed=False, confirmed=confirmed)


if __name__ == "__main__":
    main()
