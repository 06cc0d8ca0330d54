#!/usr/bin/python
"""Tell whether Nginx, or its port, serves something else than Paddock on this host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: nginx_adopt
short_description: Refuse a host that serves another site
description:
  - Paddock replaces F(/etc/nginx/nginx.conf). On a host where that is somebody else's, the module fails
    before anything has changed, or keeps a copy in F(/etc/nginx/before-paddock) if it is told to go on.
  - A file as its package brought it is no other site, nor is a host that this role has changed before.
options:
  adopt: {description: Whether to keep a copy and go on., type: bool, default: false}
  ports: {description: Ports that Nginx is to listen on., type: list, elements: int, default: []}
"""

EXAMPLES = r"""
- name: Refuse a host that serves another site
  nginx_adopt:
    adopt: false
    ports: [80, 443]
"""

RETURN = r"""
found: {description: What is served here by others., returned: success, type: list, elements: str}
copy: {description: Where the file before is kept., returned: changed, type: str}
"""

import hashlib
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

ROOT = Path("/etc/nginx")
CONFIG = ROOT / "nginx.conf"
KEPT = ROOT / "before-paddock"
# The role's own drop-in, which comes before its nginx.conf.
OURS = Path("/etc/systemd/system/nginx.service.d/paddock.conf")
STAMP = "location = /generation { return 200"


class Host:
    """What this host serves."""

    def __init__(self, module):
        self.module = module

    def run(self, *command):
        """Run a program; returns what it printed, nothing where there is no such program."""
        if not self.module.get_bin_path(command[0]):
            return ""
        return self.module.run_command([*command])[1]

    def pristine(self, path):
        """Tell whether a file is as its package brought it."""
        owner = self.run("dpkg-query", "--search", str(path)).partition(":")[0]
        if not owner.startswith("nginx"):
            return False  # another package's may well be a site
        sums = self.run("dpkg-query", "--show", "--showformat=${Conffiles}", owner)
        content = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        return f" {path} {content}" in sums

    def sites(self):
        """Name the files of other sites that Nginx has."""
        files = [CONFIG, *ROOT.glob("sites-enabled/*"), *ROOT.glob("conf.d/*.conf")]
        # A link that leads nowhere serves nothing.
        return [str(path) for path in files if path.is_file() and not self.pristine(path.resolve())]

    def listeners(self, ports):
        """Name the programs other than Nginx that have its ports."""
        found = []
        for line in self.run("ss", "-H", "-l", "-t", "-n", "-p").splitlines():
            words = line.split()
            port = words[3].rpartition(":")[2] if len(words) > 3 else ""
            names = set(re.findall(r'\("([^"]+)"', line))
            if port.isdigit() and int(port) in ports and names and "nginx" not in names:
                found.append(f"port {port} of {', '.join(sorted(names))}")
        return sorted(set(found))


def keep(text):
    """Keep a copy of nginx.conf, next to those of other times."""
    name = CONFIG.name
    if (KEPT / name).exists() and (KEPT / name).read_bytes() != text:
        name += f".{hashlib.sha256(text).hexdigest()[:8]}"
    KEPT.mkdir(mode=0o700, exist_ok=True)  # it may name secrets
    (KEPT / name).write_bytes(text)
    return str(KEPT / name)


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "adopt": {"type": "bool", "default": False},
            "ports": {"type": "list", "elements": "int", "default": []},
        },
        supports_check_mode=True,
    )
    host = Host(module)
    text = CONFIG.read_bytes() if CONFIG.exists() else b""
    if OURS.exists() or STAMP.encode() in text:
        module.exit_json(changed=False, found=[])
    if taken := host.listeners(module.params["ports"]):
        module.fail_json(
            msg=f"Nginx cannot listen on this host: {'; '.join(taken)}. Nothing was changed. Stop and disable"
            " what listens there, or give Nginx other ports: nginx_port, nginx_tls.port."
        )
    sites = host.sites()
    if not sites:
        module.exit_json(changed=False, found=[])
    if not module.params["adopt"]:
        module.fail_json(
            msg=f"This host serves another site by Nginx: {', '.join(sites)}. Paddock would replace {CONFIG},"
            " and Nginx would serve none of them. Nothing was changed. Use another host as balancer, or"
            f" remove them; or set nginx_adopt: true, which keeps a copy of {CONFIG} in {KEPT} and goes on."
        )
    # Without a nginx.conf of their own, nothing is lost: the other files stay where they are.
    copy = str(KEPT / CONFIG.name) if module.check_mode else keep(text)
    module.warn(f"{CONFIG} is kept as {copy}. Nginx serves no more: {', '.join(sites)}")
    module.exit_json(changed=True, found=sites, copy=copy)


if __name__ == "__main__":
    main()
