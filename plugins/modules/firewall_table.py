#!/usr/bin/python
"""Keep one nftables table as described."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: firewall_table
short_description: An nftables table of our own, loaded now and at boot
description:
  - The kernel's table decides, not the file. The rules are loaded into an empty network namespace, and
    what nft lists there is compared with what it lists here, so a table that was flushed or edited by
    hand is noticed and put right. This also checks the rules before they are used.
  - The table is C(inet paddock). No other table is touched.
  - The sets hold addresses only, because the rules must load while DNS is dead. A name that is lost keeps the
    addresses that it had; one that never had any is left out. Both are said.
options:
  rules: {description: Text for C(nft --file) with what the table has in addition to its sets., type: str}
  sets:
    description:
      - Addresses, networks and host names by the name of a set. The table gets two of each, such as C(apps4)
        and C(apps6).
      - Without them C(rules) is the whole text, such as C(before) of an earlier call.
    type: dict
  path: {description: Where that text is kept for the next boot., type: path, required: true}
  unit: {description: File of the systemd unit that loads it., type: path, required: true}
  unit_text: {description: Text of the unit., type: str}
  state:
    description: Whether the table is to be there.
    choices: [present, absent]
    default: present
    type: str
"""

EXAMPLES = r"""
- name: Load the rules
  paddock.fleet.firewall_table:
    rules: "{{ lookup('ansible.builtin.template', 'firewall.nft.j2') }}"
    sets: {apps: [10.0.0.5, lb2.example.org]}
    path: /etc/paddock/firewall.nft
    unit: /etc/systemd/system/paddock-firewall.service
    unit_text: "{{ lookup('ansible.builtin.template', 'paddock-firewall.service.j2') }}"
"""

RETURN = r"""
problem: {description: What was not as described., returned: changed, type: str}
before: {description: The rules that were there before; empty for none., returned: present, type: str}
"""

import ipaddress
import json
import re
import socket
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

LIST = ["nft", "--json", "list", "table", "inet", "paddock"]


def plain(node):
    """A listing without what differs between two equal tables: handles, and who connects right now."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if isinstance(node, dict):
        # Only sets that fill themselves have a size; nft 1.0 does not list their flag.
        unlike = {"handle", "metainfo"} | ({"elem"} if "size" in node else set())
        return {key: plain(value) for key, value in node.items() if key not in unlike}
    return node


def is_network(client):
    """Whether a client is an address or a network, not a name."""
    try:
        ipaddress.ip_network(client, strict=False)
    except ValueError:
        return False
    return True


def look_up(name):
    """Addresses of a name, sorted; none where DNS does not have it."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    # One with a scope is good on one link only.
    return sorted({answer[4][0] for answer in answers if "%" not in answer[4][0]})


def addresses(module, sets, before):
    """Addresses of each name in the sets, and a warning of each that is lost."""
    last = {name: found.split() for name, found in re.findall(r"(?m)^# Address of (\S+): (.+)$", before)}
    found = {}
    for name in sorted({client for clients in sets.values() for client in clients if not is_network(client)}):
        found[name] = look_up(name)
        if not found[name]:
            found[name] = last.get(name, [])
            kept = f"the rules keep what it had: {', '.join(found[name])}"
            module.warn(
                f"{name} is not in DNS for {socket.gethostname()};"
                f" {kept if found[name] else 'it has never been, so the rules leave it out'}"
            )
    return found


def whole(rules, sets, found):
    """The text of the table: it replaces the one before in one transaction."""
    lines = [f"# Address of {name}: {' '.join(known)}" for name, known in found.items() if known]
    lines += ["table inet paddock", "delete table inet paddock", "", "table inet paddock {"]
    for name, clients in sorted(sets.items()):
        members = sorted({address for client in clients for address in found.get(client, [client])})
        for version in (4, 6):
            some = [member for member in members if (":" in member) == (version == 6)]
            lines += [f"    set {name}{version} {{", f"        type ipv{version}_addr"]
            lines += ["        flags interval", "        auto-merge"]
            lines += [f"        elements = {{ {', '.join(some)} }}"] if some else []
            lines += ["    }", ""]
    return "\n".join([*lines, "}", "", rules])


class Table:
    """The table of this host."""

    def __init__(self, module):
        self.module = module
        self.path, self.unit = Path(module.params["path"]), Path(module.params["unit"])
        self.before = read(self.path)

    def systemctl(self, *args):
        return self.module.run_command(["systemctl", *args])

    def loaded(self):
        """The table in the kernel; None where there is none."""
        if not self.module.get_bin_path("nft"):
            return None
        rc, out, _ = self.module.run_command(LIST)
        return plain(json.loads(out)) if rc == 0 else None

    def wanted(self, rules):
        """What the table would be with these rules; fails with what nft has against them."""
        shell = f'nft --file "$1" && {" ".join(LIST)}'
        candidate = Path(self.module.tmpdir) / "firewall.nft"
        candidate.write_text(rules, encoding="utf-8")
        rc, out, err = self.module.run_command(["unshare", "--net", "sh", "-c", shell, "sh", str(candidate)])
        if rc != 0:
            said = (err or out).strip().replace(str(candidate), str(self.path))
            self.module.fail_json(msg=f"nft refuses the rules; those before them stay.\n{said}")
        return plain(json.loads(out))

    def problem(self, files, wanted):
        """What is not as described; empty if nothing is."""
        for path, text in files.items():
            if read(path) != text:
                return f"{path} is not as described"
        if self.loaded() != wanted:
            return "the table in the kernel is not as described"
        for question in ("is-enabled", "is-active"):
            if self.systemctl(question, self.unit.name)[0] != 0:
                return f"{self.unit.name}: {question} says no"
        return ""

    def load(self, files):
        """Write the files and load the table."""
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            part.write_text(text, encoding="utf-8")
            part.chmod(0o644)
            part.replace(path)
        self.systemctl("daemon-reload")
        for command in (["enable"], ["reload-or-restart"]):
            rc, _, err = self.systemctl(*command, self.unit.name)
            if rc != 0:
                self.module.fail_json(
                    msg=f"{self.unit.name}: {command[0]} failed: {err.strip()}", before=self.before
                )

    def take_away(self):
        """Stop the unit, which deletes the table, and remove the files; the unit last."""
        self.systemctl("disable", "--now", self.unit.name)
        if self.loaded() is not None:
            self.module.run_command(["nft", "delete", "table", "inet", "paddock"], check_rc=True)
        self.path.unlink(missing_ok=True)
        self.unit.unlink(missing_ok=True)
        self.systemctl("daemon-reload")


def read(path):
    """Text of a file; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "rules": {},
            "sets": {"type": "dict"},
            "path": {"type": "path", "required": True},
            "unit": {"type": "path", "required": True},
            "unit_text": {},
            "state": {"choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["rules", "unit_text"])],
        supports_check_mode=True,
    )
    table = Table(module)
    before = table.before
    if module.params["state"] == "absent":
        there = table.unit.exists() or before or table.loaded() is not None
        if there and not module.check_mode:
            table.take_away()
        problem = "the table is there" if there else ""
        module.exit_json(changed=bool(there), problem=problem, diff={"before": before, "after": ""})
    rules, sets = module.params["rules"], module.params["sets"]
    if sets is not None:
        rules = whole(rules, sets, addresses(module, sets, before))
    files = {table.path: rules, table.unit: module.params["unit_text"]}
    if module.check_mode and not module.get_bin_path("nft"):
        diff = {"before": before, "after": rules}
        module.exit_json(changed=True, problem="nftables is not installed", diff=diff)
    wanted = table.wanted(rules)
    problem = table.problem(files, wanted)
    if problem and not module.check_mode:
        table.load(files)
        if left := table.problem(files, wanted):
            module.fail_json(msg=f"The rules were loaded, and yet {left}.", before=before)
    diff = {"before": before, "after": rules}
    module.exit_json(changed=bool(problem), problem=problem, before=before, diff=diff)


if __name__ == "__main__":
    main()
