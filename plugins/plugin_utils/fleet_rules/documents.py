"""How a YAML file that cannot be read is explained."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from yaml import MarkedYAMLError
from yaml.reader import ReaderError

from .problem import Problem

_LONGEST = 100


def relative(path: str) -> str:
    """Write a path the way a user would.

    Args:
        path: An absolute path.

    Returns:
        The path from the current folder, if it is below it.
    """
    short = os.path.relpath(path)
    return path if short.startswith("..") else short


def explain_yaml(error: BaseException, path: str, text: str, *, secret: bool = False) -> tuple[str, str]:
    """Say where a file stops being YAML.

    Args:
        error: What the parser raised.
        path: The file.
        text: Its content.
        secret: Whether the content may not be shown.

    Returns:
        File and line, and what is wrong there.
    """
    if isinstance(error, ReaderError):
        before = error.position if isinstance(error.position, int) else 0
        line, reason = text.count("\n", 0, before) + 1, f"{error.reason} (character {error.character!r})"
    elif isinstance(error, MarkedYAMLError) and error.problem_mark:
        line, reason = error.problem_mark.line + 1, error.problem or "it cannot be read"
        if error.context:
            begin = error.context_mark
            where = f" that begins in line {begin.line + 1}" if begin and begin.line + 1 != line else ""
            reason += f", {error.context}{where}"
    else:
        return relative(path), f"is not valid YAML: {str(error).partition(chr(10))[0]}"
    if "unhashable" in reason and "{{" in text:
        reason += " (a value that starts with {{ needs quotes)"
    written = text.splitlines()
    # A bracket that is never closed is noticed at the end, where there is nothing to show.
    last = max((number for number, one in enumerate(written, 1) if one.strip()), default=1)
    line = min(line, last)
    shown = "" if secret or not written else f"; the line is {_quote(written[line - 1])}"
    return f"{relative(path)}:{line}", f"is not valid YAML: {reason}{shown}"


def check_inventories(sources: Iterable[str]) -> Iterator[Problem]:
    """Look for files of hosts that Ansible could not read: it warns of these and goes on without them.

    Args:
        sources: The inventories of the run.

    Yields:
        A problem for each file that is not valid YAML.
    """
    for path in map(Path, sources):
        if path.suffix in (".yml", ".yaml") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            try:
                yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            except yaml.YAMLError as error:
                where, what = explain_yaml(error, str(path), text)
                yield Problem(what, where=where)


def _quote(line: str) -> str:
    text = line.strip(" ")
    cut = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return json.dumps(cut, ensure_ascii=False)
