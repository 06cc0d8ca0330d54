"""Files and links of root, each written as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class File(NamedTuple):
    """A file as it should be."""

    path: Path
    text: str
    mode: int = 0o644
    group: int = 0

    def there(self) -> bool:
        """Whether it is so."""
        try:
            found = self.path.lstat()
            same = (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (self.mode, 0, self.group)
            return same and self.path.read_text(encoding="utf-8") == self.text
        except (OSError, UnicodeDecodeError):
            return False

    def write(self) -> None:
        """Write the whole file or nothing. It has its mode before it has its content."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.part")
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            os.fchown(file.fileno(), 0, self.group)
            os.fchmod(file.fileno(), self.mode)
            file.write(self.text)
        part.replace(self.path)


def read(path: Path) -> str:
    """Return the text of a file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def owner(path: Path) -> int | None:
    """Who owns a file that may vanish."""
    try:
        return path.stat().st_uid
    except OSError:
        return None


def link_target(path: Path) -> str:
    """Where a symbolic link points; empty if there is none."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def link(path: Path, target: str) -> None:
    """Point a symbolic link at a target, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(path)
