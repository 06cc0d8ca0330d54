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
  - Nothing is reloaded when the running Nginx and the file are as asked for.
options:
  content:
    description: The whole nginx.conf. C(@generation@) in it is replaced by a stamp of the text.
    required: true
    type: str
  status_url:
    description: Where the running Nginx answers with its stamp.
    required: true
    type: str
  path: {description: The configuration file., default: /etc/nginx/nginx.conf, type: path}
  wait: {description: Seconds until the new configuration must answer., default: 10, type: int}
"""

EXAMPLES = r"""
- name: Run the configuration
  nginx_config:
    content: "{{ lookup('ansible.builtin.template', 'nginx.conf.j2') }}"
    status_url: http://127.0.0.1:8099/generation
"""

RETURN = r"""
generation: {description: Stamp of the configuration., returned: success, type: str, sample: 0f3a9c77d2b1}
"""

import hashlib
import time
import urllib.error
import urllib.request
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

ERROR_LOG = Path("/var/log/nginx/error.log")


class Nginx:
    """The Nginx of this host."""

    def __init__(self, module):
        self.module = module
        self.path = Path(module.params["path"])
        self.url = module.params["status_url"]

    def installed(self):
        """Text of the configuration file; empty where there is none."""
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def running(self):
        """Stamp that the running Nginx answers with; None where none does."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.url, timeout=2) as response:
                return response.read(100).decode()
        except (OSError, ValueError):
            return None

    def refuses(self, text):
        """What `nginx -t` has against a text; empty when nothing."""
        aside = self.path.with_name(f".{self.path.name}.new")
        try:
            write(aside, text)
            rc, _, err = self.module.run_command(["nginx", "-t", "-q", "-c", str(aside)])
        finally:
            aside.unlink(missing_ok=True)
        return err.replace(str(aside), str(self.path)).strip() if rc != 0 else ""

    def systemctl(self, *args):
        return self.module.run_command(["systemctl", *args, "nginx.service"])

    def load(self):
        """Reload, or start what does not run; neither tells whether it worked."""
        if self.systemctl("is-active")[0] == 0:
            self.systemctl("reload")
        else:
            self.systemctl("reset-failed")
            self.systemctl("start")

    def answers(self, generation, seconds):
        """Wait until the running Nginx has the generation."""
        deadline = time.monotonic() + seconds
        while self.running() != generation:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


def write(path, text):
    """Write a whole file or none."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.chmod(0o644)
    part.replace(path)


def tail(size):
    """What the error log has gained since it had `size` bytes, its last lines."""
    try:
        with ERROR_LOG.open("rb") as log:
            log.seek(size)
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-5:])
    except OSError:
        return ""


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "content": {"required": True},
            "status_url": {"required": True},
            "path": {"type": "path", "default": "/etc/nginx/nginx.conf"},
            "wait": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    nginx = Nginx(module)
    generation = hashlib.sha256(module.params["content"].encode()).hexdigest()[:12]
    wanted = module.params["content"].replace("@generation@", generation)
    before = nginx.installed()
    enabled = nginx.systemctl("is-enabled")[0] == 0
    if before == wanted and enabled and nginx.running() == generation:
        module.exit_json(changed=False, generation=generation)

    diff = {"before": before, "after": wanted}
    diff |= {"before_header": str(nginx.path), "after_header": str(nginx.path)}
    have_nginx = module.get_bin_path("nginx") is not None
    problem = nginx.refuses(wanted) if have_nginx else ""
    if problem:
        module.fail_json(
            msg=f"Nginx refuses the new configuration; the one before it keeps serving.\n{problem}"
        )
    if module.check_mode:
        module.exit_json(changed=True, generation=generation, diff=diff)

    log_size = ERROR_LOG.stat().st_size if ERROR_LOG.exists() else 0
    write(nginx.path, wanted)
    if not enabled:
        nginx.systemctl("enable")
    nginx.load()
    if not nginx.answers(generation, module.params["wait"]):
        said = tail(log_size)
        if before:
            write(nginx.path, before)
            nginx.load()
        module.fail_json(
            msg="Nginx accepted the new configuration but does not run it"
            f" ({nginx.url} does not answer {generation}); the file before it is back in place.\n{said}"
        )
    module.exit_json(changed=True, generation=generation, diff=diff)


if __name__ == "__main__":
    main()
