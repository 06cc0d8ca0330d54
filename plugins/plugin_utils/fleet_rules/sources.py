"""Rules for the folders below ``app_src``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.version import Version

from .locks import Fault, Pin, make_command, parse_lock
from .own_wheels import provides
from .problem import Problem, problem, show
from .shipping import Shipping

# From this release on gthread lingers on kept-alive connections; before, deploys cost requests.
OLDEST_GUNICORN = Version("27.0.1")


def read_pins(lock: Path) -> list[Pin]:
    """Read what a lock names exactly.

    Args:
        lock: The ``requirements.txt`` of the app.

    Returns:
        The packages; none where the file cannot be read.
    """
    text = _read(lock) or ""
    return [found for found in parse_lock(text) if isinstance(found, Pin)]


def check_entrypoint(folder: Path, entrypoint: str, pins: Sequence[Pin] = ()) -> bool:
    """Tell whether the module that Gunicorn imports is there.

    Args:
        folder: The folder of the app.
        entrypoint: ``module:object``.
        pins: What the app's lock names.

    Returns:
        True if it ships with the folder, or comes with a package of the lock.
    """
    module = entrypoint.partition(":")[0]
    path = folder.joinpath(*module.split("."))
    shipping = Shipping(folder)
    if shipping.ships(path.with_name(f"{path.name}.py")) or shipping.ships(path / "__init__.py"):
        return True
    return provides(folder, pins, module)


def check_lock(lock: Path, framework: str) -> Iterator[Problem]:
    """Check that a lock says exactly what to install, and that it includes what Paddock needs.

    Args:
        lock: The ``requirements.txt`` of the app.
        framework: The framework of the app.

    Yields:
        A problem for each line that is wrong and each package that is missing.
    """
    text = _read(lock)
    if text is None:
        allowed = f"a lock with hashes, as this writes it: {make_command(lock)}"
        yield problem((), "is missing or no text", allowed, key=str(lock))
        return
    found = list(parse_lock(text))
    packages = {one.name if isinstance(one, Pin) else one.key for one in found}
    left = [one for one in found if isinstance(one, Fault) and one.is_open]
    for one in found:
        where = f"{lock}:{one.number}"
        if isinstance(one, Pin):
            if one.name == "gunicorn" and one.version < OLDEST_GUNICORN:
                allowed = f"gunicorn=={OLDEST_GUNICORN} or later"
                yield problem((), f"is {show(str(one.requirement))}", allowed, key=one.name, where=where)
        elif left and one is left[0]:
            # A file that was never locked has one cause and one cure, however many lines it has.
            more = ", ".join(str(other.number) for other in left[1:])
            like = f" (also in line {more})" if more else ""
            yield Problem(f"{one}{like}, as this writes it: {make_command(lock)}", where=where)
        elif one not in left:
            yield Problem(str(one), where=where)
    for package in {"gunicorn", framework} & {"gunicorn", "tornado"} - packages:
        oldest = f"=={OLDEST_GUNICORN} or later" if package == "gunicorn" else "==version"
        yield problem((), "is missing", f"{package}{oldest}", key=package, where=f"{lock}:1")


def _read(lock: Path) -> str | None:
    try:
        return lock.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
