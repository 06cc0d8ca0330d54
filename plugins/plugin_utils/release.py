"""The files of a release and its id: the one place that decides both."""

from __future__ import annotations

import os
from pathlib import Path

from ansible.errors import AnsibleError

from ..module_utils.release_archive import content_digest
from .archives import File
from .fleet_rules.shipping import IgnoreFileError, Shipping


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


def release_digest(files: list[File]) -> str:
    """Hash the files of a release.

    Args:
        files: The files sorted by path.

    Returns:
        The hash in hexadecimal digits.
    """
    return content_digest(files)


def release_id(files: list[File]) -> str:
    """Name a release.

    Args:
        files: The files sorted by path.

    Returns:
        The first 12 digits of the hash of the files.
    """
    return release_digest(files)[:12]
