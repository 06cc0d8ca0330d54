"""Vars plugin that reads group_vars and host_vars as Ansible does, with two additions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ansible import constants, context
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.group import Group
from ansible.inventory.helpers import get_group_vars
from ansible.inventory.host import Host
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import AnsibleVaultError, is_encrypted_file
from ansible.plugins.vars import BaseVarsPlugin
from ansible.plugins.vars.host_group_vars import VarsModule as HostGroupVars
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.documents import (
    explain_yaml,
    relative,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.project import project_root
from yaml import YAMLError

DOCUMENTATION = """
name: fleet_vars
short_description: Load group_vars and host_vars, and name the line of what cannot be read
description:
  - Replaces C(ansible.builtin.host_group_vars) and reads the same files in the same order.
  - A file that is not valid YAML is named with its line and the line's text, one of Ansible Vault that
    cannot be opened with its name.
  - An inventory in another folder than C(inventory) of this repository gets C(inventory/group_vars) of
    the repository as well, so that a folder for each environment needs no copy of it. Whatever that
    inventory says itself wins, be it in its own C(group_vars) and C(host_vars) or in its file of hosts.
options: {}
extends_documentation_fragment: [vars_plugin_staging]
"""


class _Reader(HostGroupVars):
    """Reads files as Ansible does, and explains one that cannot be read."""

    def load_found_files(
        self, loader: DataLoader, data: dict[str, Any], found_files: list[str]
    ) -> dict[str, Any]:
        """Load files of variables.

        Args:
            loader: Ansible's reader of files.
            data: The variables so far.
            found_files: The files, later ones win.

        Returns:
            The variables with those of the files.

        Raises:
            AnsibleParserError: A file cannot be read; file and line are named.
        """
        for found in found_files:
            try:
                data = super().load_found_files(loader, data, [found])
            except AnsibleError as error:
                raise AnsibleParserError(_explain(loader, found, error)) from None
        return data


class VarsModule(BaseVarsPlugin):
    """Ansible's entry point."""

    def __init__(self) -> None:
        # Not inherited from: a collection's plugin may not say that it has to be enabled.
        self._reader = _Reader()

    def get_vars(
        self,
        loader: DataLoader,
        path: str,
        entities: Host | Group | Sequence[Host | Group],
        cache: bool = True,
    ) -> dict[str, Any]:
        """Load the variables of groups or of a host.

        Args:
            loader: Ansible's reader of files.
            path: The folder of an inventory or of a playbook.
            entities: The groups or the host.
            cache: Whether files are looked for only once.

        Returns:
            The variables.
        """
        entities = list(entities) if isinstance(entities, Sequence) else [entities]
        own = self._reader.get_vars(loader, path, entities, cache)
        groups = [entity for entity in entities if isinstance(entity, Group)]
        shared_folder = _shared_folder(path)
        if not groups or not shared_folder:
            return own
        shared = self._reader.get_vars(loader, shared_folder, groups, cache)
        everyone = [up for group in groups for up in group.get_ancestors() if up.name == "all"][:1]
        if not everyone:  # this is the group `all`, which Ansible asks for before the others
            return {**shared, **own}
        # Of the shared variables, what the inventory says of `all` or in its hosts file has lost by now to
        # what the repository says of `all` or of a smaller group. It shall win.
        said = self._reader.get_vars(loader, path, everyone, cache)
        names = {*shared, *self._reader.get_vars(loader, shared_folder, everyone, cache)} - set(said)
        written = get_group_vars([*everyone, *groups])
        lower = {name: shared[name] for name in shared if name in names}
        return {**lower, **{name: written[name] for name in written if name in names}, **own}


def _shared_folder(path: str) -> str:
    """Return the folder whose group_vars the first inventory shares; empty if `path` is not its folder."""
    sources = context.CLIARGS.get("inventory") or constants.DEFAULT_HOST_LIST
    folders = [
        source if os.path.isdir(source) else os.path.dirname(source)
        for source in sources
        if os.path.exists(source)
    ]
    # Later ones win over it; with the shared ones again, they would lose to it.
    if not folders or os.path.realpath(path) != os.path.realpath(folders[0]):
        return ""
    shared = project_root(sources) / "inventory"
    own = os.path.realpath(os.path.join(path, "group_vars"))
    return "" if own == os.path.realpath(shared / "group_vars") else str(shared)


def _explain(loader: DataLoader, path: str, error: AnsibleError) -> str:
    """Say in one line why a file cannot be read."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    if any(isinstance(one, AnsibleVaultError) for one in causes):
        return (
            f"{relative(path)}: is encrypted by Ansible Vault and cannot be decrypted"
            f" ({str(causes[-1]).rstrip('.')}); allowed: its password, by --ask-vault-pass or"
            " the environment variable ANSIBLE_VAULT_PASSWORD_FILE"
        )
    text = loader.get_text_file_contents(path)
    fault = next((one for one in causes if isinstance(one, YAMLError)), None)
    if fault is None:
        content = loader.load_from_file(path, unsafe=True)
        reason = (
            "is a list" if isinstance(content, list) else f"cannot be used ({str(causes[-1]).rstrip('.')})"
        )
        return f"{relative(path)}:1: {reason}; allowed: a mapping of variables"
    with open(path, "rb") as file:
        where, what = explain_yaml(fault, path, text, secret=is_encrypted_file(file))
    return f"{where}: {what}"
