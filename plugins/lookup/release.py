"""Lookup that turns the folder of an app into a release."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display
from ansible_collections.paddock.fleet.plugins.plugin_utils.archives import store
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.shipping import summary
from ansible_collections.paddock.fleet.plugins.plugin_utils.project import cache_folder
from ansible_collections.paddock.fleet.plugins.plugin_utils.release import read_folder, release_digest

DOCUMENTATION = """
name: release
short_description: Name and pack what an app's folder holds
description:
  - The id is a hash of the folder's files, so the same code always has the same id.
  - Everything in the folder ships, hidden files too, except for what a rule leaves out. The rules are in
    C(plugin_utils/fleet_rules/shipping.py), among them C(.git), virtual environments, C(__pycache__),
    C(node_modules), the folder C(tests) at the top, and C(*.whl) in the folder C(wheels) at the top, for
    the lock names their hashes. A file C(.paddockignore) in the folder has more, in the syntax of
    C(.gitignore). C(.gitignore) itself has no effect.
  - When a new archive is written, a line says how many files it has and what was left out. One that is
    there is compared with the folder each time, and written again with a warning where it differs.
options:
  _terms:
    description: Folders of apps; the last part of the path is the app's name.
    type: list
    elements: str
    required: true
  archive:
    description: Whether to write the archive.
    type: bool
    default: true
"""

EXAMPLES = """
- name: Show the release that would be deployed
  ansible.builtin.debug:
    msg: "{{ lookup('release', playbook_dir + '/../app_src/requestme').id }}"
"""

RETURN = """
_raw:
  description:
    - One mapping a folder. C(digest) is a SHA-256 of its files, and C(id) its first 12 digits.
    - C(archive) is the path of a reproducible C(.tar.gz), or null where none was asked for.
    - C(files) is how many files it has.
    - C(left_out) maps rules to how much each left out; a folder counts as one.
  type: list
  elements: dict
"""


class LookupModule(LookupBase):
    """Ansible's entry to this file."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object
    ) -> list[dict[str, Any]]:
        """Name each folder's release and, if wanted, pack it.

        Args:
            terms: The folders.
            variables: The variables of the host.
            **kwargs: The options.

        Returns:
            The id and the archive of each release, and what it is made of.

        Raises:
            AnsibleError: A folder is missing, empty or holds what cannot be shipped.
        """
        self.set_options(var_options=variables, direct=kwargs)
        archives = cache_folder(variables or {}) / "releases" if self.get_option("archive") else None
        return [self._release(Path(os.path.normpath(term)), archives) for term in terms]

    def _release(self, folder: Path, archives: Path | None) -> dict[str, Any]:
        files, left_out = read_folder(folder)
        digest = release_digest(files)
        found = {"id": digest[:12], "digest": digest, "files": len(files), "left_out": left_out}
        if archives is None:
            return {**found, "archive": None}
        archive = archives / f"{folder.name}-{found['id']}.tar.gz"
        if store(archive, files, "folder"):
            Display().display(summary(folder.name, digest[:12], len(files), left_out))
            if any(file.path == ".env" for file in files):
                Display().warning(
                    f"{folder.name} ships its .env, which the app's user can read. The place for secrets is"
                    " environment: in apps.yml, from Ansible Vault. To keep the file here, name it in"
                    " .paddockignore."
                )
        return {**found, "archive": str(archive)}
