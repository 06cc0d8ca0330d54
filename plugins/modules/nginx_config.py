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
        of its certificates.
    required: true
    type: str
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


def addressed(module, content, before):
    """Put the addresses of names into a configuration, and warn of names that have none."""
    found = names.look_up(names.names(content), names.known(before))
    for address, problem in sorted(found.values()):
        if problem and address:
            module.warn(f"{problem}: Nginx keeps its last address, {address}.")
        elif problem:
            module.warn(f"{problem}, and never was: its host gets no requests until it is.")
    return names.addressed(content, {name: one.address for name, one in found.items()})


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
    before = nginx.installed()
    content = addressed(module, fitted(module, module.params["content"]), before)
    text, generation = nginx.stamped(content, nginx_pool.out_of_rotation(content))
    enabled = nginx.systemctl("is-enabled")
    if before == text and enabled and nginx.running() == generation:
        return {"changed": bool(diffs), "generation": generation, "diff": diffs}

    diff = {"before": before, "after": text}
    diff |= {"before_header": str(nginx.CONFIG), "after_header": str(nginx.CONFIG)}
    if module.check_mode:
        # A dry run has installed no Nginx and made no certificate.
        ready = module.get_bin_path("nginx") and all(path.exists() for path in nginx.certificates(text))
        if ready and (problem := nginx.refusal(text)):
            raise nginx_pool.Refused(f"Nginx refuses the new configuration.\n{problem}")
    else:
        nginx.apply(text, generation, module.params["wait"])
        cache.remove_caches(text)
        if not enabled:
            nginx.systemctl("enable")
    return {"changed": True, "generation": generation, "diff": [*diffs, diff]}


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "content": {"required": True},
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
