"""Lookup that makes the environment of a lock for the platform of a host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.paddock.fleet.plugins.module_utils.release_archive import file_digest
from ansible_collections.paddock.fleet.plugins.plugin_utils.archives import store
from ansible_collections.paddock.fleet.plugins.plugin_utils.environment import Builder
from ansible_collections.paddock.fleet.plugins.plugin_utils.platforms import (
    Platform,
    environment_digest,
    read_lock,
)
from ansible_collections.paddock.fleet.plugins.plugin_utils.project import cache_folder

DOCUMENTATION = """
name: environment
short_description: Make the environment of a lock for a host's platform
description:
  - Installs what a lock with hashes names by uv, for the host's Python and processor, and packs it. No
    code of a package runs.
  - What was fetched stays in C(.cache/uv) next to the inventory. What is there already is not asked for
    again, so no network is needed then.
  - Each archive is compared with its packages when it is used, and the packages with the lists of their
    wheels. What differs is packed or fetched again, with a warning.
  - A package that replaces a file of the environment itself is refused.
  - A folder C(wheels) next to the lock may hold wheels that no index has. Their hashes have to be in
    the lock, too. Nothing is ever built from a source archive.
options:
  _terms:
    description: Lock files; the last folder of the path is the app's name.
    type: list
    elements: str
    required: true
  facts:
    description: Facts of the host, with the subsets C(architecture), C(distribution) and C(python).
    type: dict
    required: true
  index_url:
    description: Package index; empty is what the control node's uv uses, usually PyPI.
    type: str
    default: ""
  archive:
    description: Whether to make the environment. Its id needs no packages.
    type: bool
    default: true
"""

EXAMPLES = """
- name: Show the archive that a host would unpack
  ansible.builtin.debug:
    msg: "{{ lookup('paddock.fleet.environment', lock, facts=ansible_facts).archive }}"
  vars:
    lock: app_src/requestme/requirements.txt
"""

RETURN = """
_raw:
  description:
    - One mapping a lock. C(digest) is a SHA-256 of what the lock has for the platform, and C(id) its
      first 12 digits.
    - C(archive) is the path of a reproducible C(.tar.gz), and C(sha256) the hash of that file; both are
      null where none was asked for.
  type: list
  elements: dict
"""


class LookupModule(LookupBase):
    """Ansible's entry to this file."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object
    ) -> list[dict[str, Any]]:
        """Name the environment of each lock and, if wanted, make it.

        Args:
            terms: The locks.
            variables: The variables of the host.
            **kwargs: The options.

        Returns:
            The id and the archive of each environment.

        Raises:
            AnsibleError: A lock cannot be met on the platform, or the index does not answer.
        """
        self.set_options(var_options=variables, direct=kwargs)
        platform = Platform.of(self.get_option("facts"))
        cache = cache_folder(variables or {})
        return [self._environment(Path(os.path.normpath(term)), platform, cache) for term in terms]

    def _environment(self, lock: Path, platform: Platform, cache: Path) -> dict[str, Any]:
        pins = read_lock(lock, platform)
        digest = environment_digest(pins, platform)
        found = {"id": digest[:12], "digest": digest, "archive": None, "sha256": None}
        if self.get_option("archive"):
            archive = cache / "environments" / f"{found['id']}.tar.gz"
            builder = Builder(cache / "uv", self.get_option("index_url"))
            with builder.environment(lock, pins, platform) as files:
                store(archive, files, "lock")
                found |= {"archive": str(archive), "sha256": file_digest(archive)}
        return found
