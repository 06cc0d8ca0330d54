#!/usr/bin/python
"""Collect what the roles ask of a host, in one step."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_facts
short_description: What the roles ask of a host, in one step
description:
  - A step on a host takes some hundred milliseconds, whatever it does. The roles ask these facts instead of
    a command each, and act only where something is missing.
  - The names are those of C(ansible.builtin.setup), which takes several times as long, but for C(paddock).
options: {}
"""

EXAMPLES = r"""
- name: Collect what is on this host
  paddock.fleet.host_facts:
  when: ansible_facts.paddock is not defined
"""

RETURN = r"""
ansible_facts:
  description: Facts of the host.
  returned: always
  type: dict
  contains:
    distribution: {description: Name of the distribution., type: str, sample: Debian}
    distribution_version: {description: Its version., type: str, sample: "13"}
    distribution_major_version: {description: The first number of it., type: str, sample: "13"}
    architecture: {description: The processor's., type: str, sample: x86_64}
    python: {description: C(version) of the interpreter., type: dict}
    date_time: {description: C(epoch) of the clock in seconds., type: dict}
    paddock:
      description:
        - C(packages) are the Debian packages that are installed.
        - C(releases) are the folders in F(/srv) of releases, environments and digests that root owns,
          C(marks) the files, such as those of releases that are held back.
        - C(files) are the files below F(/etc) that are named after Paddock.
      type: dict
"""

import glob
import os
import platform
import re
import sys
import time

from ansible.module_utils.basic import AnsibleModule


def distribution(text: str) -> dict[str, str]:
    """Read the text of F(/etc/os-release)."""
    found = dict(re.findall(r'(?m)^(\w+)="?([^"\n]*)"?$', text))
    version = found.get("VERSION_ID", "")
    return {
        "distribution": found.get("ID", "").capitalize(),
        "distribution_version": version,
        "distribution_major_version": version.partition(".")[0],
    }


def entries(path: str) -> list[os.DirEntry[str]]:
    """List what root owns in a folder. Links are left out."""
    try:
        with os.scandir(path) as found:
            return [
                entry
                for entry in found
                if not entry.is_symlink() and entry.stat(follow_symlinks=False).st_uid == 0
            ]
    except OSError:
        return []


def releases(root: str) -> tuple[list[str], list[str]]:
    """Name the folders and the files `root/APP/KIND/ID-pyVERSION` of root's."""
    apps = [entry for entry in entries(root) if entry.is_dir()]
    kinds = [entry for app in apps for entry in entries(app.path) if entry.is_dir()]
    found = [entry for kind in kinds for entry in entries(kind.path) if "-py" in entry.name]
    folders = sorted(entry.path for entry in found if entry.is_dir())
    return folders, sorted(entry.path for entry in found if entry.is_file())


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    with open("/etc/os-release", encoding="utf-8") as file:
        facts: dict[str, object] = {**distribution(file.read())}
    out = ""
    if module.get_bin_path("dpkg-query"):
        form = "--showformat=${db:Status-Status} ${Package}\n"
        out = module.run_command(["dpkg-query", "--show", form])[1]
    version = sys.version_info
    folders, marks = releases("/srv")
    facts |= {
        "architecture": platform.machine(),
        "python": {"version": {"major": version.major, "minor": version.minor, "micro": version.micro}},
        "date_time": {"epoch": str(int(time.time()))},
        "paddock": {
            "packages": re.findall(r"(?m)^installed (\S+)$", out),
            "releases": folders,
            "marks": marks,
            "files": [*glob.glob("/etc/*/*/paddock*"), *glob.glob("/etc/*/*/*/paddock*")],
        },
    }
    module.exit_json(changed=False, ansible_facts=facts)


if __name__ == "__main__":
    main()
