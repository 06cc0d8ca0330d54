"""Lookup that turns the folder of an app into a release."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

ROOT = Path(__file__).parents[2]
ARCHIVES = ROOT / ".cache" / "releases"

# Ansible gives the plugins of a repository no way to import a package next to them.
sys.path.append(str(ROOT / "plugins"))

from fleet_rules.shipping import IgnoreFileError, Shipping, summary

DOCUMENTATION = """
name: release
short_description: Name and pack what an app's folder holds
description:
  - The id is a hash of the folder's files, so the same code always has the same id.
  - Everything in the folder ships, hidden files too, except for what a rule leaves out. The rules are in
    C(plugins/fleet_rules/shipping.py), among them C(.git), virtual environments, C(__pycache__),
    C(node_modules), the folder C(tests) at the top, and C(*.whl) in the folder C(wheels) at the top, for
    the lock names their hashes. A file C(.paddockignore) in the folder has more, in the syntax of
    C(.gitignore). C(.gitignore) itself has no effect.
  - When a new archive is written, a line says how many files it has and what was left out.
options:
  _terms:
    description: Folders of apps; the last part of the path is the app's name.
    type: list
    elements: str
    required: true
  archive:
    description: Whether to write the archive, unless it is there already.
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
    - One mapping a folder. C(id) has 12 hexadecimal digits.
    - C(archive) is the path of a reproducible C(.tar.gz), or null where none was asked for.
    - C(files) is how many files it has.
    - C(left_out) maps rules to how much each left out; a folder counts as one.
  type: list
  elements: dict
"""


class File(NamedTuple):
    """A file of a release."""

    path: str
    executable: bool
    content: bytes


def _refuse(path: Path | str, state: str, allowed: str) -> AnsibleError:
    return AnsibleError(f"{path} {state}; allowed: {allowed}")


def _read(path: Path, root: Path) -> File:
    if path.is_symlink():
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # Python before 3.13 calls a loop a RuntimeError
            raise _refuse(path, "leads nowhere", "a symlink to a file of the folder") from None
        if not target.is_relative_to(root.resolve()) or target.is_dir():
            raise _refuse(path, f"leads to {target}", "a symlink to a file of the folder")
    if not path.is_file():
        raise _refuse(path, "is neither a file nor a folder", "files, folders, symlinks to files")
    try:
        with path.open("rb") as file:
            executable = bool(os.fstat(file.fileno()).st_mode & 0o100)
            return File(path.relative_to(root).as_posix(), executable, file.read())
    except OSError as error:
        raise _refuse(path, f"cannot be read: {error.strerror}", "a readable file") from None


def release_files(folder: Path) -> list[File]:
    """Read the files of a release.

    Args:
        folder: The folder of the app.

    Returns:
        The files sorted by path.

    Raises:
        AnsibleError: The folder is missing, empty or holds what cannot be shipped.
    """
    return read_folder(folder)[0]


def read_folder(folder: Path) -> tuple[list[File], dict[str, int]]:
    """Read the files of a release, and count what is left out.

    Args:
        folder: The folder of the app.

    Returns:
        The files sorted by path, and how much each rule left out.

    Raises:
        AnsibleError: The folder is missing, empty or holds what cannot be shipped.
    """
    allowed = "a folder with the app's code"
    if not os.path.lexists(folder):
        raise _refuse(folder, "is missing", allowed)
    if not folder.is_dir():
        raise _refuse(folder, "is not a folder", allowed)
    try:
        shipping = Shipping(folder)
        files = sorted(_read(path, folder) for path in shipping.files())
    except IgnoreFileError as error:
        raise AnsibleError(str(error)) from None
    except OSError as error:
        raise _refuse(folder, f"cannot be read: {error.strerror}", "a readable folder") from None
    if not files:
        raise _refuse(folder, "has no files", allowed)
    return files, dict(sorted(shipping.left_out.items()))


def release_id(files: list[File]) -> str:
    """Hash the files of a release.

    Args:
        files: The files sorted by path.

    Returns:
        The first 12 hexadecimal digits of the hash.
    """
    digest = hashlib.sha256()
    for file in files:
        # The lengths in front keep one tree from reading like another.
        for part in (os.fsencode(file.path), b"x" if file.executable else b"", file.content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:12]


def pack(files: list[File]) -> bytes:
    """Pack the files of a release, always into the same bytes.

    Args:
        files: The files sorted by path.

    Returns:
        A gzipped tar archive without times and owners.
    """
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for file in files:
            info = tarfile.TarInfo(file.path)
            info.size = len(file.content)
            info.mode = 0o755 if file.executable else 0o644
            archive.addfile(info, io.BytesIO(file.content))
    return buffer.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Args:
        path: The file.
        content: Its content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A run may die here: what has the final name is whole.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class LookupModule(LookupBase):
    """What Ansible looks for in this file."""

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
        """
        self.set_options(var_options=variables, direct=kwargs)
        return [self._release(Path(os.path.normpath(term))) for term in terms]

    def _release(self, folder: Path) -> dict[str, Any]:
        files, left_out = read_folder(folder)
        found = {"id": release_id(files), "archive": None, "files": len(files), "left_out": left_out}
        if self.get_option("archive"):
            archive = ARCHIVES / f"{folder.name}-{found['id']}.tar.gz"
            found["archive"] = str(archive)
            if not archive.exists():
                self._write(archive, files, summary(folder.name, found["id"], len(files), left_out))
        return found

    def _write(self, archive: Path, files: list[File], line: str) -> None:
        """Write an archive and say so, once, whichever of Ansible's workers comes first."""
        archive.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(archive.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if archive.exists():
                return
            write_whole(archive, pack(files))
        finally:
            os.close(folder)
        Display().display(line)
        if any(file.path == ".env" for file in files):
            Display().warning(
                f"{line.partition(' ')[0]} ships its .env, which the app's user can read. The place for"
                " secrets is environment: in apps.yml, from Ansible Vault. To keep the file here, name it in"
                " .paddockignore."
            )
