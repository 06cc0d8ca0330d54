"""What a lock has for a host's platform."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible.errors import AnsibleError

from .fleet_rules.locks import Fault, Pin, parse_lock

# The newest glibc 2 that Debian's release has and uv knows: that of Debian 13 is 2.41.
GLIBC = {"12": 36, "13": 40}
ARCHITECTURES = ("x86_64", "aarch64")


class Platform(NamedTuple):
    """What decides which wheels a host can use."""

    debian: str
    python: str  # with the patch level: markers may ask for it
    architecture: str

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Platform:
        """Read the platform from a host's facts.

        Args:
            facts: The facts.

        Returns:
            The platform.

        Raises:
            AnsibleError: Facts are missing, or name a platform that Paddock does not know.
        """
        try:
            python = "{major}.{minor}.{micro}".format(**facts["python"]["version"])
            found = cls(str(facts["distribution_major_version"]), python, facts["architecture"])
        except KeyError as error:
            raise AnsibleError(
                f"the facts have no {error}; allowed: facts with architecture, distribution and python"
            ) from None
        for name, value, allowed in (
            ("Debian's version", found.debian, GLIBC),
            ("the architecture", found.architecture, ARCHITECTURES),
        ):
            if value not in allowed:
                raise AnsibleError(f"{name} is {value}; allowed: {', '.join(allowed)}")
        return found

    def __str__(self) -> str:
        return f"Debian {self.debian}, Python {self.python}, {self.architecture}"

    @property
    def minor(self) -> str:
        """Python's version without the patch level."""
        return self.python.rpartition(".")[0]

    @property
    def tag(self) -> str:
        """The platform as uv names it."""
        return f"{self.architecture}-manylinux_2_{GLIBC[self.debian]}"

    @property
    def markers(self) -> dict[str, str]:
        """The values of a lock's markers."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.architecture,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": self.minor,
            "sys_platform": "linux",
            "extra": "",
        }


def read_lock(lock: Path, platform: Platform) -> list[Pin]:
    """Read which packages a lock has for a platform.

    Args:
        lock: The file.
        platform: The platform.

    Returns:
        The packages, sorted by name.

    Raises:
        AnsibleError: The file cannot be read, or does not name versions and hashes.
    """
    try:
        text = lock.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise AnsibleError(
            f"{lock} is missing or no text; allowed: a lock as uv pip compile --generate-hashes writes"
        ) from None
    pins: dict[str, Pin] = {}
    for found in parse_lock(text):
        if isinstance(found, Fault):
            raise AnsibleError(f"{lock}:{found.number}: {found}")
        marker = found.requirement.marker
        if marker and not marker.evaluate(platform.markers):
            continue
        known = pins.setdefault(found.name, found)
        if known.version != found.version:
            raise AnsibleError(
                f"{lock}:{found.number}: {found} conflicts with {known}; allowed: one version for {platform}"
            )
    return sorted(pins.values(), key=lambda pin: pin.name)


def environment_digest(pins: Sequence[Pin], platform: Platform) -> str:
    """Name an environment by what decides what is in it.

    Args:
        pins: The packages, sorted by name.
        platform: The platform.

    Returns:
        A SHA-256 in hexadecimal digits.
    """
    lines = (f"{platform.tag} {platform.minor}\n", *(pin.line for pin in pins))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def explain(said: str, lock: Path, pins: Sequence[Pin], platform: Platform) -> str:
    """Describe in one line why uv could not make an environment.

    Args:
        said: What uv has written.
        lock: The file that names the packages.
        pins: The packages.
        platform: The platform.

    Returns:
        The file and line, the package, the platform, and what is allowed.
    """
    text = " ".join(line.strip().removeprefix("cause: ") for line in said.splitlines())
    text = re.sub(r"^error: |No solution found when resolving dependencies | hint: .*", "", text).strip()
    by_name = {pin.name: pin for pin in pins}
    for pattern, problem in (
        (r"Hash mismatch for `([\w.-]+)", "has another hash on the index; allowed: what the lock names"),
        (
            r"([\w.-]+?)(?:==\S+)? (?:has no (?:usable )?wheels|was not found)|no version of ([\w.-]+?)==",
            f"has no wheel for {platform}; allowed: a package with such a wheel (nothing is built from"
            f" source), or your own in {lock.parent / 'wheels'}",
        ),
        (r"no trusted hash was provided for: `([\w.-]+)`", "is needed"),
    ):
        for found in re.finditer(pattern, text):
            name = next(filter(None, found.groups()))
            if pin := by_name.get(name):
                return f"{lock}:{pin.number}: {pin} {problem}"
            return f"{lock}: {name} is needed, but the lock lacks it; allowed: a whole lock ({text})"
    named = [pin for pin in pins if re.search(rf"(?<![\w.-]){re.escape(pin.name)}(?![\w-])", text)]
    where = f"{lock}:{named[0].number}" if named else str(lock)
    return f"{where}: no environment for {platform}: {text}"
