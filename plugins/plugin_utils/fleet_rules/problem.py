"""How a problem reads."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]

_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a string"}
_LONGEST = 60


class Broken:
    """Stands for a value whose template failed; that is reported where it is found."""


BROKEN = Broken()


@dataclass(frozen=True)
class Problem:
    """Something that keeps the fleet from working.

    Attributes:
        text: ``KEY is VALUE; allowed: WHAT``.
        path: Where in the variables of the host it is, to find file and line.
        host: The host whose variables those are.
        where: File and line, if the rule knows them itself.
    """

    text: str
    path: KeyPath = ()
    host: str = ""
    where: str = ""


def problem(
    path: KeyPath, state: str, allowed: str, *, key: str = "", host: str = "", where: str = ""
) -> Problem:
    """Put the parts of a problem together.

    Args:
        path: Where the value is among the variables.
        state: What is wrong, such as ``is 0``.
        allowed: What would be right.
        key: How to call the value, if not by its path.
        host: The host whose variable it is.
        where: File and line, if known.

    Returns:
        The problem.
    """
    return Problem(f"{key or show_path(path)} {state}; allowed: {allowed}", path, host, where)


def show_path(path: KeyPath) -> str:
    """Write a path the way one would in a template.

    Args:
        path: Keys and indices.

    Returns:
        Text such as ``apps[0].routes[1].path``.
    """
    text = ""
    for step in path:
        plain = isinstance(step, str) and re.fullmatch(r"[\w-]+", step)
        text += f".{step}" if plain else f"[{json.dumps(step, default=str)}]"
    return text.removeprefix(".")


def show(value: object, *, secret: bool = False) -> str:
    """Write a value on one line.

    Args:
        value: Any value.
        secret: Whether only its kind may be shown.

    Returns:
        JSON, cut where it is long. Mappings stay closed: they may hold secrets.
    """
    if isinstance(value, Mapping):
        return "a mapping" if value else "{}"
    if isinstance(value, list) and (secret or not all(isinstance(item, str) for item in value)):
        return "a list"
    if secret and value is not None:
        kind = next((name for base, name in _KINDS.items() if isinstance(value, base)), "a value")
        return f"{kind} (not shown)"
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the known word that looks most like a mistyped one.

    Args:
        word: What was written.
        known: What could have been meant.

    Returns:
        Text to append, empty if nothing is close.
    """
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
