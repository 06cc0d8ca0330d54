"""How a lock is read: the one place that decides what each line of a requirements.txt means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .problem import show

EXACT = "name==version with --hash=sha256:..."

# What these ask for is so anyway: each package has a hash, and none is built on the way.
HARMLESS = ("--require-hashes", "--only-binary", "--prefer-binary")
INDEX = ("-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--trusted-host")
FILES = ("-r", "--requirement", "-c", "--constraint")

_LOCAL = re.compile(r"\.\.?(/|\[|$)|/|~/|file:|[\w.-]+/")
_BUILD = (
    f"{EXACT}; a project of your own becomes a wheel (uv build --wheel -o wheels) and a line with its"
    " version and hash"
)


class Pin(NamedTuple):
    """A line that names a package, its version and its hashes."""

    number: int
    requirement: Requirement
    version: Version
    hashes: frozenset[str]

    @property
    def name(self) -> str:
        """The package's name as indexes write it."""
        return canonicalize_name(self.requirement.name)

    @property
    def line(self) -> str:
        """The line without its marker, always in the same words."""
        extras = ",".join(sorted(self.requirement.extras))
        hashes = "".join(f" --hash=sha256:{one}" for one in sorted(self.hashes))
        return f"{self.name}{f'[{extras}]' if extras else ''}=={self.version}{hashes}\n"

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


class Fault(NamedTuple):
    """A line that cannot be met as it is."""

    number: int
    key: str
    text: str
    allowed: str

    @property
    def is_open(self) -> bool:
        """Whether it names a package, but not exactly: a lock was never made."""
        return self.allowed == EXACT

    def __str__(self) -> str:
        return f"{self.key} is {self.text}; allowed: {self.allowed}"


def parse_lock(text: str) -> Iterator[Pin | Fault]:
    """Read a lock.

    Args:
        text: Its content.

    Yields:
        What each line that is no comment means.
    """
    for number, line in lock_lines(text):
        found = _option(number, line) if line.startswith("-") else _requirement(number, line)
        if found:
            yield found


def lock_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join continued lines and leave out comments.

    Args:
        text: A lock.

    Yields:
        The number of each first line, and the whole of it.
    """
    joined, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start if joined else number
        content = re.sub(r"(^|\s)#.*", "", line).strip()
        joined += content.removesuffix("\\")
        if content.endswith("\\"):
            continue
        if joined.strip():
            yield start, joined.strip()
        joined = ""
    if joined.strip():
        yield start, joined.strip()


def make_command(lock: Path) -> str:
    """Say how the lock of an app is made.

    Args:
        lock: The file.

    Returns:
        A command for a shell, run where this run was started.
    """
    source = lock.with_name("requirements.in")
    if source.is_file() or not lock.with_name("pyproject.toml").is_file():
        first = "" if source.is_file() or not lock.is_file() else f"mv {lock} {source} && "
        return f"{first}uv pip compile --universal --only-binary :all: --generate-hashes {source} -o {lock}"
    return f"uv export --no-build --project {lock.parent} --no-dev --no-emit-project -o {lock}"


def _option(number: int, line: str) -> Fault | None:
    written = re.match(r"--[a-z-]+|-[a-zA-Z]", line)
    option = written[0] if written else line
    if option in HARMLESS:
        return None
    allowed = "no options of pip"
    if option in ("-e", "--editable"):
        allowed = _BUILD
    elif option in INDEX:
        allowed = "no index here; fleet_index_url names it, and wheels/ has wheels that no index has"
    elif option in FILES:
        allowed = "all packages in this one file, as uv pip compile writes them"
    elif option == "--no-binary":
        allowed = "packages with wheels: nothing is built from source"
    return Fault(number, "line", show(mask(line)), allowed)


def _requirement(number: int, line: str) -> Pin | Fault:
    written, *options = re.split(r"\s+(?=--)", line)
    shown = show(mask(written))
    try:
        requirement = Requirement(written)
        version = _version(requirement)
    except (InvalidRequirement, InvalidVersion):
        return Fault(number, "line", shown, _BUILD if _LOCAL.match(written) else EXACT)
    name = canonicalize_name(requirement.name)
    if requirement.url:
        return Fault(number, name, shown, _BUILD)
    hashes = [re.fullmatch(r"--hash=sha256:([0-9a-f]{64})", option.strip()) for option in options]
    if version is None or not any(hashes):
        return Fault(number, name, shown, EXACT)
    for option, found in zip(options, hashes, strict=True):
        if not found and not option.startswith("--hash="):
            return Fault(number, name, show(mask(option)), "no options of pip but --hash")
    return Pin(number, requirement, version, frozenset(found[1] for found in hashes if found))


def _version(requirement: Requirement) -> Version | None:
    match list(requirement.specifier):
        case [only] if only.operator == "==" and not only.version.endswith("*"):
            return Version(only.version)
    return None


def mask(text: str) -> str:
    """Remove logins and queries from the addresses in a text: they may have a password or a token.

    Args:
        text: The text.

    Returns:
        The text, with stars in their place.
    """
    text = re.sub(r"(?<=://)[^/\s]*@", "***@", text)
    return re.sub(r"(://[^\s?]*)\?[^\s)`'\"]*", r"\1?***", text)
