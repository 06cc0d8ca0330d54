"""Archives in the cache of the control node: the same files always make the same bytes."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ansible.utils.display import Display


class File(NamedTuple):
    """A file of an archive."""

    path: str
    executable: bool
    content: bytes | Path  # a large file is read only while it is packed


class _Comparison(io.RawIOBase):
    """A file to write to, which compares with a real one instead."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.same = file, True

    def write(self, content: bytes) -> int:  # type: ignore[override]
        self.same = self.same and self.file.read(len(content)) == content
        return len(content)


def pack(files: Sequence[File], target: BinaryIO) -> None:
    """Write a tar archive without times and owners.

    Args:
        files: Its files, in this order.
        target: What the bytes are written to.
    """
    with tarfile.open(fileobj=target, mode="w|") as archive:
        for path, executable, content in files:
            info = tarfile.TarInfo(path)
            info.mode = 0o755 if executable else 0o644
            if isinstance(content, Path):
                info.size = content.stat().st_size
                with content.open("rb") as file:
                    archive.addfile(info, file)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def holds(archive: Path, files: Sequence[File]) -> bool:
    """Check whether an archive holds exactly these files.

    Args:
        archive: A gzipped tar archive, which may be missing.
        files: The files.

    Returns:
        True if all bytes are the same.
    """
    try:
        with gzip.open(archive) as unpacked:
            comparison = _Comparison(unpacked)
            pack(files, comparison)
            return comparison.same and not unpacked.read(1)
    except (OSError, EOFError, zlib.error):
        return False


def store(archive: Path, files: Sequence[File], source: str) -> bool:
    """Write an archive, unless it holds exactly these files.

    Args:
        archive: The file. A run may die here: a file of this name is whole.
        files: What it holds.
        source: What the files were made from, for a warning.

    Returns:
        Whether it was written.
    """
    if holds(archive, files):
        return False
    with locked(archive.parent):
        if holds(archive, files):  # another worker of Ansible was first
            return False
        if archive.exists():
            Display().warning(f"{archive} does not hold what its {source} does. It is packed again.")
        with whole(archive) as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            pack(files, packed)
    return True


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Write a file whole or not at all.

    Args:
        path: The file; only its owner may read it.

    Yields:
        What its content is written to.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Let one process at a time change a folder, which only its owner may enter.

    Args:
        folder: The folder; it is created where it is missing.

    Yields:
        The lock, for a program that may outlive this process to hold as well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)
