#!/usr/bin/python
"""Make Nginx run one configuration, or keep it on the one before."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nginx_config
short_description: Run a verified Nginx configuration
description:
  - C(nginx -t) and a reload both report success in cases where the old configuration stays (a port
    in use, for one). So the text carries a generation stamp, and the module is done when the
    running Nginx answers with it. Otherwise the file before it is put back and the module fails.
  - Backends that are out of rotation on this host are so in the new configuration.
  - Names are looked up, and the file has their addresses. One that is lost keeps its last address; one that
    never had any is out of rotation. So Nginx starts whatever DNS says.
  - Lines for what this host's Nginx or kernel does not have are left out, C(max_headers) and IPv6.
  - Nothing is reloaded when the running Nginx and the file are as asked for.
options:
  content:
    description:
      - The whole F(/etc/nginx/nginx.conf). C(@generation@) in it is replaced by a stamp of the text and
        of its certificates, C(@address:NAME@) by the address of a name, and C(@down:APP/BACKEND@) by C(down)
        while the backend is out of rotation.
    required: true
    type: str
  apps: {description: Names of the apps., type: list, elements: str, default: []}
  backends:
    description: The backends, each with C(name), C(address) and C(apps).
    type: list
    elements: dict
    default: []
  certificates:
    description: Files with certificates that Nginx reads.
    type: list
    elements: path
    default: []
  files:
    description: Files that the unit and Nginx's programs need, with C(path) and C(content). Written first.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Path of the file., type: path, required: true}
      content: {description: Its text., type: str, required: true}
  wait: {description: Seconds until the new configuration must answer., default: 10, type: int}
"""

EXAMPLES = r"""
- name: Run the configuration
  paddock.fleet.nginx_config:
    content: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"
    apps: [shop]
    backends: [{name: app1, address: 10.0.0.1, apps: [shop]}]
"""

RETURN = r"""
generation: {description: Stamp of the configuration., returned: success, type: str, sample: 0f3a9c77d2b1}
"""

import contextlib
import re
import socket
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.paddock.fleet.plugins.module_utils import nginx_cache as cache
from ansible_collections.paddock.fleet.plugins.module_utils import nginx_host as nginx
from ansible_collections.paddock.fleet.plugins.module_utils import nginx_names as names
from ansible_collections.paddock.fleet.plugins.module_utils import nginx_pool
from ansible_collections.paddock.fleet.plugins.module_utils.files import File, read


def fitted(module, content):
    """Leave out what this host does not have: an old Nginx would refuse a directive, and IPv4 a socket."""
    if (binary := module.get_bin_path("nginx")) and b"max_headers" not in Path(binary).read_bytes():
        module.warn(
            "This Nginx knows no limit for the number of headers; an update of its package brings it."
        )
        content = re.sub(r"(?m)^ *max_headers [^\n]*\n", "", content)
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        content = re.sub(r"(?m)^ *listen \[::\]:[^\n]*\n", "", content)
    return content


def asked(module, before):
    """Tell what to run, and warn of names that have no address."""
    backends = sorted(module.params["backends"], key=lambda backend: backend["name"])
    pools = {
        app: {one["name"]: one["address"] for one in backends if app in one["apps"]}
        for app in sorted(module.params["apps"])
    }
    content = fitted(module, module.params["content"])
    wanted = nginx_pool.Wanted(content, pools, module.params["certificates"])
    found = names.look_up(wanted.names, before.addresses)
    for address, problem in sorted(found.values()):
        if problem and address:
            module.warn(f"{problem}: Nginx keeps its last address, {address}.")
        elif problem:
            module.warn(f"{problem}, and never was: its host gets no requests until it is.")
    return wanted._replace(addresses={name: one.address for name, one in found.items()})


def ensure_files(module):
    """Write the files that differ; returns the diffs."""
    files = [File(Path(file["path"]), file["content"]) for file in module.params["files"]]
    differ = [file for file in files if not file.there()]
    diffs = [
        {"before": read(file.path), "after": file.text, "before_header": str(file.path)} for file in differ
    ]
    for file in differ if not module.check_mode else ():
        file.write()
    return diffs


def work(module):
    """Compare, and change what differs; returns the result."""
    diffs = ensure_files(module)
    if not module.check_mode:
        nginx.read_unit()
    before, before_text = nginx_pool.wanted(), nginx.installed()
    wanted = asked(module, before)
    nginx_pool.refuse_empty_pools(wanted)
    text, generation = nginx.stamped(wanted)
    enabled = nginx.systemctl("is-enabled")
    if (before, before_text) == (wanted, text) and enabled and nginx.running() == generation:
        return {"changed": bool(diffs), "generation": generation, "diff": diffs}

    diff = {"before": before_text, "after": text}
    diff |= {"before_header": str(nginx.CONFIG), "after_header": str(nginx.CONFIG)}
    if module.check_mode:
        # A dry run has installed no Nginx and made no certificate.
        ready = module.get_bin_path("nginx") and all(Path(path).exists() for path in wanted.certificates)
        if ready and (problem := nginx.refusal(text)):
            raise nginx_pool.Refused(f"Nginx refuses the new configuration.\n{problem}")
    else:
        nginx.apply(wanted, module.params["wait"])
        cache.remove_caches(text)
        if not enabled:
            nginx.systemctl("enable")
    return {"changed": True, "generation": generation, "diff": [*diffs, diff]}


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "content": {"required": True},
            "apps": {"type": "list", "elements": "str", "default": []},
            "backends": {"type": "list", "elements": "dict", "default": []},
            "certificates": {"type": "list", "elements": "path", "default": []},
            "files": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                },
                "default": [],
            },
            "wait": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    try:
        # A dry run makes no lock.
        with (
            nginx_pool.alone()
            if nginx_pool.ROTATION.exists() or not module.check_mode
            else contextlib.nullcontext()
        ):
            result = work(module)
    except nginx_pool.Refused as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
