"""Rules for what of an app's folder goes to the hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pathspec import GitIgnoreSpec, PathSpec
from pathspec.util import CheckResult

IGNORE_FILE = ".paddockignore"

# In the syntax of .gitignore, as the app's own rules, which come after these and win.
RULES = (
    ".git",
    ".venv",
    "__pycache__",
    "*.pyc",
    "node_modules",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".tox",
    ".nox",
    ".idea",
    ".vscode",
    ".DS_Store",
    ".coverage",
    ".*.sw?",  # an editor has the file open
    ".#*",
    "/tests/",
    "/wheels/*.whl",  # they travel with the environment
    "/wheels/.gitignore",  # uv build writes it
)
ENVIRONMENT = "virtual environment"


class IgnoreFileError(Exception):
    """A line of an ignore file cannot be understood."""


class Shipping:
    """What of one app's folder is shipped, and what was left out by which rule."""

    def __init__(self, root: Path) -> None:
        """Read the app's own rules.

        Args:
            root: The folder of the app.

        Raises:
            IgnoreFileError: They cannot be read.
        """
        self.root = root
        self.left_out: Counter[str] = Counter()
        # The lock is part of what a release is named after: another lock is another release.
        lines = [*RULES, *_own_rules(root / IGNORE_FILE), "!/requirements.txt"]
        self._spec = GitIgnoreSpec.from_lines(lines)
        # To Git, `data/**` is what is in the folder, not the folder; to the library it is both. And here
        # each folder is asked about by itself, so the last pattern decides, as it does in Git.
        self._folders = PathSpec.from_lines(
            "gitignore", ("" if line.strip().rstrip("/").endswith("/**") else line for line in lines)
        )

    def files(self) -> Iterator[Path]:
        """Walk through the folder.

        Yields:
            Each file that ships, and whatever else there is that is no folder.

        Raises:
            OSError: A folder cannot be read.
        """
        yield from self._walk(self.root)

    def ships(self, path: Path) -> bool:
        """Tell whether a file is there and ships.

        Args:
            path: A path in the folder.

        Returns:
            True if no rule leaves out the file or a folder above it.
        """
        above = [one for one in path.parents if one.is_relative_to(self.root) and one != self.root]
        return (
            path.is_file() and not self._rule(path, False) and not any(self._rule(one, True) for one in above)
        )

    def _walk(self, folder: Path) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            is_folder = path.is_dir() and not path.is_symlink()
            if rule := self._rule(path, is_folder):
                self.left_out[rule] += 1
            elif is_folder:
                yield from self._walk(path)
            else:
                yield path

    def _rule(self, path: Path, is_folder: bool) -> str:
        """Name the rule that leaves a path out; empty if it ships."""
        name = path.relative_to(self.root).as_posix()
        found = self._spec.check_file(name)
        if is_folder:
            found = max(found, self._folders.check_file(f"{name}/"), key=_position)
        if found.index is not None and found.index >= len(RULES):
            return IGNORE_FILE if found.include else ""
        if found.include and found.index is not None:
            return RULES[found.index].strip("/")
        return ENVIRONMENT if is_folder and (path / "pyvenv.cfg").is_file() else ""


def _position(found: CheckResult[str]) -> int:
    return -1 if found.index is None else found.index


def _own_rules(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError):
        raise IgnoreFileError(f"{file} cannot be read; allowed: text in the syntax of .gitignore") from None
    for number, line in enumerate(lines, 1):
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            allowed = "a pattern in the syntax of .gitignore"
            raise IgnoreFileError(f"{file}:{number}: is {line!r}; allowed: {allowed}") from None
    return lines


def summary(name: str, identifier: str, files: int, left_out: dict[str, int]) -> str:
    """Say in a line what a release is made of.

    Args:
        name: The name of the app.
        identifier: The id of the release.
        files: How many files it has.
        left_out: How much each rule left out.

    Returns:
        The line.
    """
    line = f"{name} {identifier}: {files} file{'' if files == 1 else 's'}"
    told = ", ".join(f"{rule} ({count})" for rule, count in left_out.items())
    return f"{line}; left out: {told}" if told else line
