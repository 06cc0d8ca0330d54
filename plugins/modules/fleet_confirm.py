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
  - Only what the run has changed can fail. An app that it has not changed and that is unhealthy is a warning,
    or one such app would stop the deploys of all others.
  - Renews the deploy's lock, if it is still this run's.
  - C(ansible.builtin.uri) would be a step on the balancer for each app and try, and does not know which
    release has to answer.
options:
  run: {description: Id of the run., type: str, default: ""}
  backend: {description: Inventory name of the backend., type: str, required: true}
  address: {description: Address of the backend., type: str, required: true}
  ports: {description: Port of each app by its name., type: dict, required: true}
  health_paths: {description: Health path of each app by its name., type: dict, required: true}
  server_names: {description: Names of each app by its name., type: dict, required: true}
  releases: {description: Release id of each app by its name., type: dict, required: true}
  changed:
    description: Names of the apps that the run has changed on this backend.
    type: list
    elements: str
    required: true
  passage:
    description: Whether any answer will do. The apps in O(changed) have to be reached then, healthy or not.
    type: bool
    default: false
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
    changed: [requestme]
  delegate_to: lb1
"""

RETURN = r"""
confirmed: {description: What was asked, by the name of the app., returned: success, type: dict}
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

LOCK = Path("/var/lib/paddock/deploy.lock")
# Of Nginx's status server; only root reaches it.
STATUS = "/run/paddock-nginx/status.sock"
ANSWER_SECONDS = 5.0
# Characters of an answer in a message.
SHOWN = 200
# Nginx says these where it does not reach the app.
NOT_REACHED = (502, 504)


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError when the block takes longer: a socket's timeout is for each read alone."""

    def over(*_: object) -> None:
        raise TimeoutError(f"no whole answer within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ask(address: str, port: int, path: str, name: str) -> tuple[int, str]:
    """GET as the balancer sends it for https.

    Args:
        address: Where to connect; `STATUS` for Nginx.
        port: Its port; unused for Nginx.
        path: What to ask for.
        name: Host name for the header.

    Returns:
        The status and the body as text without tags and control characters.

    Raises:
        OSError: No answer; TimeoutError where it is not whole in time.
        http.client.HTTPException: It is not HTTP.
    """
    connection = http.client.HTTPConnection(address, port)
    try:
        with at_most(ANSWER_SECONDS):
            if address == STATUS:
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.connect(STATUS)
            connection.request("GET", path, headers={"Host": name, "X-Forwarded-Proto": "https"})
            response = connection.getresponse()
            text = re.sub(r"<[^>]*>", " ", response.read(65536).decode("utf-8", "replace"))
    finally:
        connection.close()
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return response.status, " ".join(plain.split())


def confirm(p: dict, app: str) -> tuple[str, str]:
    """Ask for one app.

    Args:
        p: The parameters of the module.
        app: Name of the app.

    Returns:
        The URL and what is wrong with the answer, which is empty if all is well.
    """
    release = p["releases"].get(app, "")
    name = (p["server_names"][app] or ["localhost"])[0]
    path = p["health_paths"][app]
    through = (STATUS, 0, f"/backends/{app}/{p['backend']}")
    direct = (p["address"], int(p["ports"][app]), path)
    url = ""
    for address, port, asked in (through, direct):
        url = f"{asked} by {STATUS}" if address == STATUS else f"http://{address}:{port}{asked}"
        try:
            status, body = ask(address, port, asked, name)
        except (OSError, http.client.HTTPException) as error:
            if (address, port, asked) == through:
                continue  # Nginx is not there yet
            return url, str(error) or type(error).__name__
        if status == 404 and (address, port, asked) == through:
            continue  # or does not know the backend yet
        if p["passage"]:
            return url, f"status {status}: Nginx does not reach it" if status in NOT_REACHED else ""
        if status != 200:
            return (
                url,
                f"status {status}, want 200 (sent: Host: {name}, X-Forwarded-Proto: https): {body[:SHOWN]}",
            )
        if release not in body:
            return url, f"the answer does not name the release {release}: {body[:SHOWN]}"
        return url, ""
    return url, "no answer"


def renew(run: str) -> None:
    """Renew the lock of this run; not that of one that has taken it over."""
    with contextlib.suppress(OSError, ValueError):
        if json.loads(LOCK.read_text(encoding="utf-8"))["run"] == run:
            os.utime(LOCK)


def main() -> None:
    """Run as an Ansible module."""
    dicts = ("ports", "health_paths", "server_names", "releases")
    module = AnsibleModule(
        argument_spec={
            "run": {"default": ""},
            "backend": {"required": True},
            "address": {"required": True},
            **{name: {"type": "dict", "required": True} for name in dicts},
            "changed": {"type": "list", "elements": "str", "required": True},
            "passage": {"type": "bool", "default": False},
            "seconds": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    p = module.params
    if module.check_mode:
        module.exit_json(changed=False)
    renew(p["run"])
    confirmed = {}
    others = [] if p["passage"] else sorted(p["releases"].keys() - p["changed"])
    for app in [*sorted(p["changed"]), *others]:
        deadline = time.monotonic() + (p["seconds"] if app in p["changed"] else 0)
        while True:
            url, problem = confirm(p, app)
            if not problem:
                confirmed[app] = url
                break
            if time.monotonic() > deadline:
                who = f"{app} on {p['backend']} is not confirmed by {socket.gethostname()}"
                if app in p["changed"]:
                    module.fail_json(msg=f"{who}: GET {url}: {problem}")
                module.warn(f"{who}, and this run has not changed it: GET {url}: {problem}")
                break
            time.sleep(0.2)
    module.exit_json(changed=False, confirmed=confirmed)


if __name__ == "__main__":
    main()
