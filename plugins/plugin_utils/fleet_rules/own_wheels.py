"""Rules for the wheels that an app brings in its folder ``wheels``."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from ...module_utils.release_archive import OF_THE_ENVIRONMENT, file_digest
from .locks import Pin
from .problem import Problem, problem

BUILD = "uv build --wheel -o wheels"


def check_own_wheels(folder: Path, pins: Sequence[Pin]) -> Iterator[Problem]:
    """Check that the lock means the wheels that are there, and that these are of the code that is there.

    Args:
        folder: The folder of the app.
        pins: What its lock names.

    Yields:
        A problem for each wheel that would not be installed, or is older than its source.
    """
    lock = folder / "requirements.txt"
    found: dict[str, list[tuple[Path, str]]] = {}
    for path in sorted((folder / "wheels").glob("*.whl")):
        try:
            name, version, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            allowed = "the name that it was built with, such as shop-1.0-py3-none-any.whl"
            yield problem((), "has no name of a wheel", allowed, key=str(path), where=str(path))
            continue
        found.setdefault(name, []).append((path, str(version)))
    for name, wheels in found.items():
        lines = [pin for pin in pins if pin.name == name]
        pinned = {str(pin.version): pin for pin in lines}
        if lines and not pinned.keys() & {version for _, version in wheels}:
            there = ", ".join(sorted({version for _, version in wheels}))
            yield problem(
                (),
                f"is {', '.join(pinned)}",
                f"a version that {folder / 'wheels'} holds ({there}) and its hash, or no wheel of it there",
                key=name,
                where=f"{lock}:{lines[0].number}",
            )
        for path, version in wheels:
            if version in pinned:
                yield from _check_wheel(folder, path, [pin for pin in lines if str(pin.version) == version])


def _check_wheel(folder: Path, path: Path, lines: Sequence[Pin]) -> Iterator[Problem]:
    try:
        old, replaced = _older(path, folder), _replaced(path)
        digest = file_digest(path)
    except (zipfile.BadZipFile, OSError) as error:
        yield problem((), f"cannot be read ({error})", f"a wheel, as {BUILD} makes it", key=str(path))
        return
    lock = f"{folder / 'requirements.txt'}:{lines[0].number}"
    if old:
        state = f"is older than its source ({', '.join(old[:3])}{', ...' if old[3:] else ''})"
        allowed = f"a wheel of the code that is there ((cd {folder} && {BUILD})), and its new hash in {lock}"
        yield problem((), state, allowed, key=str(path), where=lock)
    elif replaced:
        allowed = "files of the package's own"
        yield problem((), f"replaces {replaced}", allowed, key=str(path), where=lock)
    elif not any(digest in pin.hashes for pin in lines):
        state = f"has the hash sha256:{digest}, which the lock does not name"
        allowed = f"--hash=sha256:{digest} in {lock}, or the wheel that the lock names"
        yield problem((), state, allowed, key=str(path), where=lock)


def _older(path: Path, folder: Path) -> list[str]:
    """Compare what is in a wheel with the files in the app's folder that it was made from."""
    differ = []
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            parts = PurePosixPath(name).parts
            if ".." in parts or re.search(r"\.(dist-info|data)$", parts[0]):
                continue
            source = next((file for file in (folder / "src" / name, folder / name) if file.is_file()), None)
            if source and wheel.read(name) != source.read_bytes():
                differ.append(source.relative_to(folder).as_posix())
    return differ


def _replaced(path: Path) -> str:
    """The file of the environment itself that a wheel would replace."""
    with zipfile.ZipFile(path) as wheel:
        targets = (_target(name) for name in wheel.namelist())
        return next((target for target in targets if OF_THE_ENVIRONMENT.fullmatch(target)), "")


def _target(name: str) -> str:
    """Where in an environment a member of a wheel lands, if not among the packages."""
    match [part for part in name.split("/") if part not in ("", ".")]:
        case [top, "data", *rest] if top.endswith(".data"):
            return "/".join(rest)
        case [top, "scripts", *rest] if top.endswith(".data"):
            return "/".join(["bin", *rest])
    return ""


def unused_wheels(folder: Path, pins: Sequence[Pin]) -> Iterator[str]:
    """Find wheels that no host gets.

    Args:
        folder: The folder of the app.
        pins: What its lock names.

    Yields:
        A warning for each wheel of a package that the lock does not name.
    """
    locked = {pin.name for pin in pins}
    for path in sorted((folder / "wheels").glob("*.whl")):
        try:
            name, version, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if name not in locked:
            line = f"{name}=={version} --hash=sha256:{file_digest(path)}"
            lock = folder / "requirements.txt"
            yield f"{path} is not installed: {lock} does not name {name}. To have it, add {line}"


def provides(folder: Path, pins: Sequence[Pin], module: str) -> bool:
    """Tell whether a package of the lock has a module, as far as this machine can know.

    Args:
        folder: The folder of the app.
        pins: What its lock names.
        module: The dotted name of the module.

    Returns:
        True if an own wheel has the module, or if a package that has no wheel here is called like it.
    """
    locked = {pin.name for pin in pins}
    path = module.replace(".", "/")
    known = set()
    for file in sorted((folder / "wheels").glob("*.whl")):
        try:
            name = parse_wheel_filename(file.name)[0]
            members = zipfile.ZipFile(file).namelist() if name in locked else []
        except (InvalidWheelFilename, zipfile.BadZipFile, OSError):
            continue
        known.add(name)
        if any(re.fullmatch(rf"{path}(\.py|/__init__\.py|\.[\w.-]+\.so)", one) for one in members):
            return True
    top = canonicalize_name(module.partition(".")[0])
    return top in locked - known
