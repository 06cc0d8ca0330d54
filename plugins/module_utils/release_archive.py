"""Content of releases and environments, as the control node packs it and a host unpacks it."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path

# A host makes these itself, or they would choose another interpreter or standard library.
OF_THE_ENVIRONMENT = re.compile(
    r"(bin/)?pyvenv\.cfg|bin/(python[\d.]*(\._pth)?|pybuilddir\.txt|(de)?activate[^/]*)(/.*)?"
)


class ArchiveError(Exception):
    """An archive cannot be unpacked; the message says why."""


def content_digest(files: Iterable[tuple[str, bool, bytes]]) -> str:
    """Hash files.

    Args:
        files: Path, whether it is executable, and content of each file, sorted by path.

    Returns:
        The SHA-256 in hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path, executable, content in files:
        # The lengths in front keep one tree from reading like another.
        for part in (os.fsencode(path), b"x" if executable else b"", content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def folder_digest(folder: Path) -> str:
    """Hash the files below a folder.

    Args:
        folder: The folder.

    Returns:
        The SHA-256 in hexadecimal digits.
    """
    files = sorted(
        (file.relative_to(folder).as_posix(), file) for file in folder.rglob("*") if file.is_file()
    )
    return content_digest(
        (name, bool(file.stat().st_mode & 0o100), file.read_bytes()) for name, file in files
    )


def file_digest(path: Path) -> str:
    """Hash a file, which may be a large one.

    Args:
        path: The file.

    Returns:
        The SHA-256 in hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(archive: Path, target: Path, modified: float = 0) -> None:
    """Unpack plain files below a folder, whatever else the archive asks for.

    Args:
        archive: The archive.
        target: The folder; it is created.
        modified: Time of the files in seconds since 1970.

    Raises:
        ArchiveError: The archive is missing, broken, or has more than plain files below its folder.
    """
    target.mkdir(parents=True)
    if not archive.exists():
        raise ArchiveError(f"{archive} has gone; run it again")
    try:
        with tarfile.open(archive) as packed:
            members = packed.getmembers()
            for member in members:
                # Debian 12's Python (3.11.2) has no filters yet.
                if not member.isreg() or member.name.startswith("/") or ".." in Path(member.name).parts:
                    raise ArchiveError(f"{archive} has {member.name!r}; allowed: files below its folder")
                member.mode = 0o755 if member.mode & 0o100 else 0o644
                member.uid, member.gid, member.uname, member.gname = 0, 0, "", ""
                member.mtime = modified
            packed.extractall(
                target, members, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
            )
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ArchiveError(f"{archive} cannot be unpacked: {error}") from None


def add_interpreter(environment: Path, version: str) -> None:
    """Make an environment of the system's interpreter out of a folder of packages.

    Args:
        environment: The folder.
        version: The interpreter's version, such as 3.13.

    Raises:
        ArchiveError: A package has brought a file that decides which interpreter runs.
    """
    names = sorted(path.relative_to(environment).as_posix() for path in environment.rglob("*"))
    if replaced := [name for name in names if OF_THE_ENVIRONMENT.fullmatch(name)]:
        raise ArchiveError(
            f"a package replaces {', '.join(replaced)}; allowed: one that leaves these as they are"
        )
    settings = {"home": "/usr/bin", "include-system-site-packages": "false", "version": version}
    (environment / "pyvenv.cfg").write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
    (environment / "bin").mkdir(exist_ok=True)
    (environment / "bin" / "python").symlink_to(f"/usr/bin/python{version}")
    for name in {"python3", f"python{version}"} - {"python"}:
        (environment / "bin" / name).symlink_to("python")
