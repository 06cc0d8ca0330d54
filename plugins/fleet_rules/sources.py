"""Rules for the folders below ``app_src``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .problem import Problem, problem, show

# From this release on gthread lingers on kept-alive connections; before, deploys cost requests.
OLDEST_GUNICORN = Version("27.0.1")


def check_entrypoint(folder: Path, entrypoint: str) -> bool:
    """Tell whether the module that Gunicorn imports is there.

    Args:
        folder: The folder of the app.
        entrypoint: ``module:object``.

    Returns:
        True if it is.
    """
    module = folder.joinpath(*entrypoint.partition(":")[0].split("."))
    return module.with_name(f"{module.name}.py").is_file() or (module / "__init__.py").is_file()


def check_lock(lock: Path, framework: str) -> Iterator[Problem]:
    """Check that a lock says exactly what to install, and that it includes what Paddock needs.

    Args:
        lock: The ``requirements.txt`` of the app.
        framework: The framework of the app.

    Yields:
        A problem for each line that is wrong and each package that is missing.
    """
    name = str(lock)
    try:
        text = lock.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        yield problem(
            (),
            "is missing or no text",
            "a lock as uv pip compile --generate-hashes writes",
            key=name,
        )
        return
    packages: set[str] = set()
    for number, line in lock_lines(text):
        where = f"{name}:{number}"
        requirement, *options = re.split(r"\s+(?=--)", line)
        try:
            parsed = Requirement(requirement)
            pin = _pin(parsed)
        except (InvalidRequirement, InvalidVersion):
            yield problem((), f"is {show(requirement)}", "name==version", key="line", where=where)
            continue
        package = canonicalize_name(parsed.name)
        packages.add(package)
        if pin is None or not any(option.startswith("--hash=") for option in options):
            allowed = "name==version with --hash=sha256:..."
            yield problem((), f"is {show(requirement)}", allowed, key=package, where=where)
        elif package == "gunicorn" and pin < OLDEST_GUNICORN:
            allowed = f"gunicorn=={OLDEST_GUNICORN} or later"
            yield problem((), f"is {show(requirement)}", allowed, key=package, where=where)
    for package in {"gunicorn", framework} & {"gunicorn", "tornado"} - packages:
        oldest = f"=={OLDEST_GUNICORN} or later" if package == "gunicorn" else "==version"
        yield problem((), "is missing", f"{package}{oldest}", key=package, where=f"{name}:1")


def lock_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join continued lines and leave out comments and options of pip.

    Args:
        text: A lock.

    Yields:
        The number of each requirement's first line, and the requirement with its options.
    """
    joined, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start if joined else number
        content = re.sub(r"(^|\s)#.*", "", line).strip()
        joined += content.removesuffix("\\")
        if content.endswith("\\"):
            continue
        if joined and not joined.startswith("-"):
            yield start, joined.strip()
        joined = ""
    if joined:
        yield start, joined.strip()


def _pin(requirement: Requirement) -> Version | None:
    match list(requirement.specifier):
        case [only] if only.operator == "==" and not only.version.endswith("*"):
            return Version(only.version)
    return None
