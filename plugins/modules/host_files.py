#!/usr/bin/python
"""Ensure the files of a role, and its service, in one step."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_files
short_description: The files of a role and its service, in one step
description:
  - A step on a host takes some hundred milliseconds, whatever it does. This module compares all files of a
    role in one step and writes those that differ. Each is written as a whole, owned by root.
  - If a unit file was changed, systemd reads it again. The state of the service decides, not whether this run
    has written a file - a service that started before its unit file was written is restarted.
options:
  files:
    description: The files. The folders of their paths are created.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Path of the file., type: path, required: true}
      content: {description: Its text., type: str, required: true}
      mode: {description: Its mode in octal digits., type: str, default: "0644"}
  absent:
    description: Files to remove, after the service has stopped.
    type: list
    elements: path
    default: []
  service: {description: Name of a unit without C(.service)., type: str}
  state:
    description: C(started) enables and starts the service, C(stopped) disables and stops it.
    choices: [started, stopped]
    default: started
    type: str
"""

EXAMPLES = r"""
- name: Install the health checks
  paddock.fleet.host_files:
    files:
      - path: /etc/systemd/system/nginx-health.service
        content: "{{ lookup('ansible.builtin.template', 'nginx-health.service.j2') }}"
    service: nginx-health
"""

RETURN = ""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.paddock.fleet.plugins.module_utils.files import File, read

UNITS = "/etc/systemd/system/"


class Host:
    """What this host has."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.before = ""
        self.after = ""
        self.changed = False

    def systemctl(self, *arguments: str) -> tuple[int, str]:
        """Run systemctl; returns its status and its output."""
        rc, out, err = self.module.run_command(["systemctl", *arguments])
        return rc, (out or err).strip()

    def change(self, before: str, after: str) -> bool:
        """Note a change; returns whether it is to be made."""
        self.changed = True
        self.before += before
        self.after += after
        return not self.module.check_mode

    def ensure_file(self, file: File) -> None:
        """Write a file that differs."""
        if file.there():
            return
        head, there = f"# {file.path}\n", file.path.exists()
        if self.change(head + read(file.path) if there else "", head + file.text):
            file.write()

    def ensure_started(self, name: str) -> None:
        """Enable and start a service; restart it if it is older than its unit file."""
        unit = Path(UNITS, f"{name}.service")
        wanted = {"enable": self.systemctl("is-enabled", name)[0] != 0}
        if self.systemctl("is-active", name)[0] != 0:
            wanted["start"] = True
        elif unit.exists() and self._older_than(name, unit):
            wanted["restart"] = True
        for command in (command for command, needed in wanted.items() if needed):
            if self.change(f"{name}: {command} is needed\n", f"{name}: {command} was done\n"):
                rc, said = self.systemctl(command, name)
                if rc != 0:
                    self.module.fail_json(msg=f"systemctl {command} {name} failed: {said}")

    def _older_than(self, name: str, unit: Path) -> bool:
        started = self.systemctl(
            "show", "--value", "--property=ActiveEnterTimestamp", "--timestamp=unix", name
        )[1]
        return int(started.lstrip("@") or 0) < int(unit.stat().st_mtime)

    def ensure_stopped(self, name: str) -> None:
        """Disable and stop a service."""
        there = self.systemctl("is-active", name)[0] == 0 or self.systemctl("is-enabled", name)[0] == 0
        if there and self.change(f"{name}: runs\n", f"{name}: stopped\n"):
            self.systemctl("disable", "--now", name)

    def read_unit(self, name: str) -> None:
        """Let systemd read a unit whose file has changed."""
        need = self.systemctl("show", "--value", "--property=NeedDaemonReload", name)[1]
        if need == "yes" and not self.module.check_mode:
            self.systemctl("daemon-reload")


def ensure(host: Host, options: dict[str, Any]) -> None:
    """Bring the host to the state that the options describe."""
    absent = [Path(path) for path in options["absent"]]
    service = options["service"]
    if service and options["state"] == "stopped":
        host.ensure_stopped(service)
    for path in absent:
        if path.exists() and host.change(f"# {path}\n", ""):
            path.unlink()
    for file in options["files"]:
        host.ensure_file(File(Path(file["path"]), file["content"], int(file["mode"], 8)))
    if service:
        host.read_unit(service)
    if service and options["state"] == "started":
        host.ensure_started(service)


def main() -> None:
    """Run as an Ansible module."""
    file = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0644"},
    }
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "options": file, "default": []},
            "absent": {"type": "list", "elements": "path", "default": []},
            "service": {"type": "str"},
            "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
        },
        supports_check_mode=True,
    )
    host = Host(module)
    ensure(host, module.params)
    module.exit_json(changed=host.changed, diff={"before": host.before, "after": host.after})


if __name__ == "__main__":
    main()
