"""Rules for the variables that set the roles' options."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from .problem import Problem, did_you_mean, problem, show

# Variables of the whole fleet that belong to no role.
FLEET_VARIABLES = frozenset(
    {
        "balancer_virtual_ip",
        "fleet_address",
        "fleet_app_src",
        "fleet_backup",
        "fleet_batch",
        "fleet_index_url",
        "fleet_max_failures",
        "fleet_monitors",
        "fleet_sources",
        "fleet_tls",
        "fleet_tls_names",
        "fleet_url",
        "fleet_weight",
        "fleet_witnesses",
    }
)

# What a role registers for the playbooks; it is there when a run checks a second time.
RESULTS = frozenset(
    {
        "firewall_loaded",
        "gunicorn_listed",
        "gunicorn_proved",
        "gunicorn_returned",
        "gunicorn_served",
        "nginx_listed",
    }
)

PREFIXES = (
    "python_",
    "app_",
    "gunicorn_",
    "tls_",
    "nginx_",
    "keepalived_",
    "firewall_",
    "balancer_",
    "fleet_",
)

# These prefixes nobody else has.
OURS = ("balancer", "fleet")

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
    option = dict(options[name])
    if message := _mismatch(name, value, option):
        detail = f" ({message})" if "options" in option else ""
        yield problem((name,), f"is {show(value)}", f"{_describe(option)}{detail}")


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
    if name in options or name in FLEET_VARIABLES | RESULTS or not known or prefix in OURS:
        return False
    words = [other.partition("_")[2] for other in known]
    keys = set(app_keys) if prefix == "app" else set()
    # An app_port of another role is none of our business; an app_prot is nobody's.
    return word in keys or not any(_alike(word, other) for other in [*words, *keys])


def _known(name: str, options: Options) -> list[str]:
    prefix = f"{name.partition('_')[0]}_"
    return [other for other in [*options, *FLEET_VARIABLES] if other.startswith(prefix)]


def _alike(word: str, other: str) -> bool:
    close = difflib.SequenceMatcher(None, word, other).ratio() >= _CLOSE
    return close and abs(len(word) - len(other)) <= _LONGER


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
    if elements := option.get("elements"):
        kind += f" (each {_KINDS.get(elements, elements)})"
    return kind
