"""Rules for the variables that set the roles' options."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .problem import BROKEN, KeyPath, Problem, did_you_mean, problem, show

ROOT = Path(__file__).resolve().parents[3]

_SPEC = yaml.safe_load((ROOT / "meta/fleet_variables.yml").read_text())

# Variables of the whole fleet that belong to no role, and old names with the new ones.
FLEET_VARIABLES = frozenset(_SPEC["options"])
RENAMED: Mapping[str, str] = _SPEC["renamed"]

# What a role registers for the playbooks; it is there when a run checks a second time.
RESULTS = frozenset(
    name
    for tasks in ROOT.glob("roles/*/tasks/*.yml")
    for name in re.findall(r"^\s+register: ([a-z]\w+)$", tasks.read_text(), re.MULTILINE)
)

# Prefixes of Paddock alone.
OURS = tuple(sorted({name.partition("_")[0] for name in FLEET_VARIABLES}))

PREFIXES = tuple(f"{name}_" for name in (*sorted(path.name for path in ROOT.glob("roles/*")), *OURS))

# How much a mistyped word has in common with the right one; found on names of widely used roles.
_CLOSE = 0.75
_LONGER = 2

_KINDS = {
    "bool": "true or false",
    "dict": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "path": "a path",
    "str": "a string",
}

Options = Mapping[str, Mapping[str, Any]]


def check_option(
    name: str, value: object, options: Options, app_keys: Iterable[str] = ()
) -> Iterator[Problem]:
    """Check a variable under one of our prefixes.

    Args:
        name: The name of the variable.
        value: Its value.
        options: The options of all roles, by name.
        app_keys: The keys of an app.

    Yields:
        A problem if no role has the option, or if the value does not fit to it.
    """
    if new := RENAMED.get(name):
        yield problem((name,), "is an old name", f"{new}, its new name")
        return
    known = _known(name, options)
    if name in FLEET_VARIABLES | RESULTS or not known:
        return
    if name not in options:
        word = name.removeprefix("app_")
        key = next((key for key in app_keys if _alike(word, key)), "") if word != name else ""
        hint = f" (did you mean the key {key} of an app?)" if key else did_you_mean(name, known)
        allowed = f"{', '.join(sorted(known))}{hint}"
        yield problem((name,), "is unknown", allowed)
        return
    yield from _check_value((name,), value, options[name])


def is_foreign(name: str, options: Options, app_keys: Iterable[str]) -> bool:
    """Tell whether a variable under one of our prefixes is another one's, such as ``nginx_vhosts``.

    Args:
        name: The name of the variable.
        options: The options of all roles, by name.
        app_keys: The keys of an app: one of these after ``app_`` may be mistyped, too.

    Returns:
        True if no role has it, and if it does not look like something of ours that is mistyped.
    """
    prefix, _, word = name.partition("_")
    known = _known(name, options)
    if name in options or name in FLEET_VARIABLES | RESULTS | RENAMED.keys() or not known or prefix in OURS:
        return False
    words = [other.partition("_")[2] for other in known]
    keys = set(app_keys) if prefix == "app" else set()
    # An app_port may belong to another role; an app_prot is a typing error.
    return word in keys or not any(_alike(word, other) for other in [*words, *keys])


def _known(name: str, options: Options) -> list[str]:
    prefix = f"{name.partition('_')[0]}_"
    return [other for other in [*options, *FLEET_VARIABLES] if other.startswith(prefix)]


def _alike(word: str, other: str) -> bool:
    close = difflib.SequenceMatcher(None, word, other).ratio() >= _CLOSE
    return close and abs(len(word) - len(other)) <= _LONGER


def _check_value(path: KeyPath, value: object, option: Mapping[str, Any]) -> Iterator[Problem]:
    """Check a value, and key by key where it is a structure, so that a problem names the very key."""
    keys = option.get("options", {})
    if keys and isinstance(value, Mapping):
        for key, item in value.items():
            if key not in keys:
                yield problem((*path, key), "is unknown", f"{', '.join(keys)}{did_you_mean(str(key), keys)}")
            elif item is not BROKEN:
                yield from _check_value((*path, key), item, keys[key])
    # Ansible takes null for absent, but as a key it takes the place of the default.
    elif (value is None and len(path) > 1) or _mismatch(str(path[-1]), value, dict(option)):
        yield problem(path, f"is {show(value)}", _describe(option))


def _mismatch(name: str, value: object, option: dict[str, Any]) -> str:
    kind = option.get("type", "str")
    # Ansible would split a string at commas or parse it, and the templates would never see that.
    if kind in ("list", "dict") and not isinstance(value, list if kind == "list" else dict):
        return "wrong type"
    messages = ArgumentSpecValidator({name: option}).validate({name: value}).error_messages
    return messages[0] if messages else ""


def _describe(option: Mapping[str, Any]) -> str:
    if choices := option.get("choices"):
        return ", ".join(str(choice) for choice in choices)
    kind = _KINDS.get(option.get("type", "str"), "a value of its type")
    if keys := option.get("options"):
        kind += f" of {', '.join(keys)}"
    if elements := option.get("elements"):
        kind += f" (each {_KINDS.get(elements, elements)})"
    return kind
