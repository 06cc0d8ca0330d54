"""The vars plugin: what cannot be read is named, and every inventory has the shared variables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FLEET = Path(__file__).parent / "fixtures" / "fleet"
APPS = "inventory/group_vars/all/apps.yml"


class Checkout:
    """A copy of the small fleet with Paddock's plugins and settings."""

    def __init__(self, folder: Path) -> None:
        """Copy it to a folder."""
        self.folder = folder
        shutil.copytree(FLEET, folder)
        shutil.copy(ROOT / "ansible.cfg", folder)

    def write(self, path: str, text: str) -> None:
        """Replace or add a file."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)

    def call(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of Ansible's commands."""
        return subprocess.run(
            [str(Path(sys.executable).with_name(tool)), *arguments],
            cwd=self.folder,
            env=os.environ | {"ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def host(self, name: str, *inventories: str) -> dict[str, Any]:
        """Return the variables of a host."""
        options = [f"--inventory={inventory}" for inventory in inventories]
        done = self.call("ansible-inventory", *options, "--host", name)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Return a good checkout."""
    return Checkout(tmp_path / "checkout")


COMMANDS = {
    "playbook": ("ansible-playbook", "playbooks/show.yml"),
    "inventory": ("ansible-inventory", "--list"),
    "adhoc": ("ansible", "b1", "-m", "ansible.builtin.ping"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        (
            APPS,
            "apps:\n  - name: shop\n    port: 8080\n - name: live\n",
            f"{APPS}:4: is not valid YAML: did not find expected key, while parsing a block mapping that"
            ' begins in line 1; the line is "- name: live"',
        ),
        (
            APPS,
            "apps:\n  - name: shop\n    routes: [{path: /}\n\n",
            f"{APPS}:3: is not valid YAML: did not find expected ',' or ']', while parsing a flow sequence",
        ),
        (
            "inventory/host_vars/b1.yml",
            "---\nnginx_port: {{ port }}\n",
            "inventory/host_vars/b1.yml:2: is not valid YAML: found unhashable key, while constructing a"
            ' mapping (a value that starts with {{ needs quotes); the line is "nginx_port: {{ port }}"',
        ),
        (
            "inventory/group_vars/backends.yml",
            "a: 1\nb: \0\n",
            "inventory/group_vars/backends.yml:2: is not valid YAML: control characters are not allowed",
        ),
        (
            "inventory/group_vars/backends.yml",
            "- a\n",
            "inventory/group_vars/backends.yml:1: is a list; allowed: a mapping of variables",
        ),
    ],
    ids=["indentation", "bracket", "quotes", "control", "list"],
)
def test_broken_file(checkout: Checkout, command: tuple[str, ...], path: str, text: str, line: str) -> None:
    """Every command of Ansible's names file, line and text."""
    checkout.write("playbooks/show.yml", "- hosts: backends\n  gather_facts: false\n  tasks: [meta: noop]\n")
    checkout.write(path, text)
    tool, *arguments = command
    done = checkout.call(tool, "--inventory=inventory/hosts.yml", *arguments)
    assert done.returncode != 0
    assert f"[ERROR]: {line}" in done.stderr


@pytest.mark.parametrize("password", ["", "wrong"])
def test_locked_vault(checkout: Checkout, password: str) -> None:
    """The file is named, and how to give the password."""
    for name in ("right", "wrong"):
        checkout.write(name, name)
    checkout.write("inventory/group_vars/all/vault.yml", "vault_token: s3cret\n")
    assert not checkout.call(
        *("ansible-vault", "encrypt", "--vault-password-file=right", "inventory/group_vars/all/vault.yml")
    ).returncode
    options = [f"--vault-password-file={password}"] if password else []
    done = checkout.call("ansible-inventory", "--inventory=inventory/hosts.yml", "--list", *options)
    assert done.returncode != 0
    assert "[ERROR]: inventory/group_vars/all/vault.yml: is encrypted by Ansible Vault" in done.stderr
    assert "--ask-vault-pass or the environment variable ANSIBLE_VAULT_PASSWORD_FILE" in done.stderr


def test_broken_vault(checkout: Checkout) -> None:
    """What was encrypted is not shown, also where it cannot be read."""
    checkout.write("right", "right")
    checkout.write("inventory/group_vars/all/vault.yml", "---\nvault_token: {{ s3cret }}\n")
    key = "--vault-password-file=right"
    assert not checkout.call("ansible-vault", "encrypt", key, "inventory/group_vars/all/vault.yml").returncode
    done = checkout.call("ansible-inventory", "--inventory=inventory/hosts.yml", "--list", key)
    assert "[ERROR]: inventory/group_vars/all/vault.yml:2: is not valid YAML: found unhash" in done.stderr
    assert "s3cret" not in done.stderr


HOSTS = """
staging:
  children:
    backends: {hosts: {s1: {deploy_serial: 7}}}
    balancers: {hosts: {s2: }}
  vars: {in_hosts_file: own, only_here: own}
"""


@pytest.mark.parametrize("outside", [False, True])
def test_folder_of_an_environment(checkout: Checkout, outside: bool) -> None:
    """An inventory in a folder of its own has the shared variables, and whatever it says itself wins."""
    folder = f"{checkout.folder.parent}/elsewhere" if outside else "inventory/staging"
    for name in ("in_hosts_file", "in_own_all", "in_own_group", "in_own_host", "only_shared"):
        checkout.write(f"inventory/group_vars/all/{name}.yml", f"{name}: shared\n")
    checkout.write("inventory/group_vars/backends.yml", "in_own_all: shared\nof_shared_group: shared\n")
    checkout.write("inventory/host_vars/s1.yml", "of_shared_host: shared\n")
    checkout.write(f"{folder}/hosts.yml", HOSTS)
    checkout.write(f"{folder}/group_vars/all/x.yml", "in_own_all: own\n")
    checkout.write(f"{folder}/group_vars/backends.yml", "in_own_group: own\n")
    checkout.write(f"{folder}/host_vars/s1.yml", "in_own_host: own\n")
    found = checkout.host("s1", f"{folder}/hosts.yml")
    assert [app["name"] for app in found["apps"]] == ["shop", "live"]
    assert found["deploy_serial"] == 7
    assert {name: value for name, value in found.items() if value in ("own", "shared")} == {
        **dict.fromkeys(["in_hosts_file", "in_own_all", "in_own_group", "in_own_host", "only_here"], "own"),
        **dict.fromkeys(["only_shared", "of_shared_group"], "shared"),
    }


def test_playbook_of_an_environment(checkout: Checkout) -> None:
    """In a play it is the same, and the folder of the playbook gets no second share, which would win."""
    checkout.write("inventory/staging/hosts.yml", HOSTS)
    checkout.write("inventory/staging/group_vars/all/apps.yml", "apps: [{name: mine}]\n")
    task = "{ansible.builtin.debug: {msg: 'has {{ apps[0].name }}, {{ deploy_serial }}'}}"
    checkout.write("playbooks/show.yml", f"- hosts: balancers\n  gather_facts: false\n  tasks: [{task}]\n")
    done = checkout.call("ansible-playbook", "--inventory=inventory/staging/hosts.yml", "playbooks/show.yml")
    assert "\nhas mine, 1\n" in done.stdout, done.stdout + done.stderr


def test_two_inventories(checkout: Checkout) -> None:
    """The shared variables come before all inventories, not before each: the later one wins."""
    checkout.write("inventory/one/hosts.yml", HOSTS)
    checkout.write("inventory/one/group_vars/all.yml", "deploy_serial: 2\n")
    checkout.write("inventory/two/hosts.yml", "backends: {hosts: {s3: }}\n")
    assert checkout.host("s3", "inventory/one/hosts.yml", "inventory/two/hosts.yml")["deploy_serial"] == 2


def test_copied_or_linked_variables(checkout: Checkout) -> None:
    """An inventory that has linked the shared variables is as one next to them."""
    checkout.write("linked/hosts.yml", HOSTS)
    (checkout.folder / "linked" / "group_vars").symlink_to("../inventory/group_vars")
    checkout.write("inventory/hosts.yml", HOSTS)
    assert checkout.host("s2", "linked/hosts.yml") == checkout.host("s2", "inventory/hosts.yml")
