"""Lookup that turns the folder of an app into a release."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

ARCHIVES = Path(__file__).parents[2] / ".cache" / "releases"

DOCUMENTATION = """
name: release
short_description: Name and pack what an app's folder holds
description:
  - The id is a hash of the folder's files, so the same code always has the same id.
  - Hidden files, C(__pycache__), C(*.pyc) and the folder C(tests) at the top are left out. So are
    C(*.whl) in the folder C(wheels) at the top, for the lock names their hashes.
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


def _walk(folder: Path, root: Path) -> Iterator[File]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if path.parent == root / "wheels" and path.suffix == ".whl":
            continue
        if path.is_dir() and not path.is_symlink():
            if path != root / "tests":
                yield from _walk(path, root)
        else:
            yield _read(path, root)


def release_files(folder: Path) -> list[File]:
    """Read the files of a release.

    Args:
        folder: The folder of the app.

    Returns:
        The files sorted by path.

    Raises:
        AnsibleError: The folder is missing, empty or holds what cannot be shipped.
    """
    allowed = "a folder with the app's code"
    if not os.path.lexists(folder):
        raise _refuse(folder, "is missing", allowed)
    if not folder.is_dir():
        raise _refuse(folder, "is not a folder", allowed)
    try:
        files = sorted(_walk(folder, folder))
    except OSError as error:
        raise _refuse(folder, f"cannot be read: {error.strerror}", "a readable folder") from None
    if not files:
        raise _refuse(folder, "has no files", allowed)
    return files


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
    # Ansible's workers may be here at the same time: each has its own file, the last rename wins.
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
    ) -> list[dict[str, str | None]]:
        """Name each folder's release and, if wanted, pack it.

        Args:
            terms: The folders.
            variables: The variables of the host.
            **kwargs: The options.

        Returns:
            The id and the archive of each release.
        """
        self.set_options(var_options=variables, direct=kwargs)
        return [self._release(Path(os.path.normpath(term))) for term in terms]

    def _release(self, folder: Path) -> dict[str, str | None]:
        files = release_files(folder)
        identifier = release_id(files)
        if not self.get_option("archive"):
            return {"id": identifier, "archive": None}
        archive = ARCHIVES / f"{folder.name}-{identifier}.tar.gz"
        if not archive.exists():
            write_whole(archive, pack(files))
        return {"id": identifier, "archive": str(archive)}
