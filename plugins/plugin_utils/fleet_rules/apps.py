"""Rules for the variable ``apps``."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators
from jsonschema.protocols import Validator

from .problem import BROKEN, KeyPath, Problem, did_you_mean, problem, show, show_path

App = dict[str, Any]

# An app's name becomes a user, units and folders in /etc/paddock, /var/lib/paddock, /opt/paddock: these are
# Debian's, or those of other roles.
# fmt: off
RESERVED_NAMES = {
    "acme", "paddock", "paddock-firewall", "nginx-health", "tls", "uv", "certbot",
    "apt", "backup", "bin", "cron", "daemon", "dbus", "games", "irc", "keepalived", "list", "lp",
    "mail", "man", "messagebus", "networking", "news", "nftables", "nginx", "nobody", "polkit",
    "proxy", "root", "rotation", "rsyslog", "ssh", "sshd", "sync", "sys", "systemd", "uucp", "www-data",
}
# fmt: on


def _pattern(
    _validator: object, pattern: str, instance: object, _schema: object
) -> Iterator[ValidationError]:
    # JSON Schema's $ is the very end; Python's would let a newline through.
    if isinstance(instance, str) and not re.search(re.sub(r"(?<!\\)\$", r"\\Z", pattern), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _property_names(
    validator: Validator, schema: dict[str, Any], instance: object, _schema: object
) -> Iterator[ValidationError]:
    for name in instance if isinstance(instance, dict) else ():
        if isinstance(name, str):
            yield from validator.descend(instance=name, schema=schema)
        else:  # YAML has keys that are numbers or true
            yield ValidationError("not a string", instance=name, schema=schema)


_Validator = validators.extend(
    Draft202012Validator,
    {"pattern": _pattern, "propertyNames": _property_names},
    # Without this 8080.0 would count as an integer and reach the files of the hosts.
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def check_schema(variables: dict[str, Any], schema: dict[str, Any]) -> Iterator[Problem]:
    """Compare the apps with the schema.

    Args:
        variables: A mapping with the key ``apps``.
        schema: The content of ``inventory/apps.schema.json``.

    Yields:
        A problem for each key that is wrong, missing or unknown.
    """
    for error in _Validator(schema).iter_errors(variables):
        yield from _translate(error, tuple(error.absolute_path))


def _translate(error: ValidationError, path: KeyPath) -> Iterator[Problem]:
    spec = error.schema
    if error.instance is BROKEN:
        yield Problem("", path)
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                yield problem((*path, key), "is missing", spec["properties"][key]["description"])
    elif error.validator == "additionalProperties" and error.validator_value is False:
        known = spec["properties"]
        for key in error.instance:
            if key not in known:
                new = spec.get("renamed", {}).get(key)
                hint = did_you_mean(str(key), known)
                state = "is an old name" if new else "is unknown"
                yield problem((*path, key), state, new or ", ".join(known) + hint)
    elif "propertyNames" in error.absolute_schema_path:
        yield problem(
            (*path, error.instance),
            f"is {show(error.instance)}",
            spec["description"],
            key=f"a key of {show_path(path)}",
        )
    else:
        once = ", each once" if error.validator == "uniqueItems" else ""
        state = f"is {show(error.instance, secret='environment' in path)}"
        yield problem(path, state, spec.get("description", error.message) + once)


def sound_apps(apps: object, problems: list[Problem]) -> list[App]:
    """Leave out what the schema refused, so that the other rules can rely on it.

    Args:
        apps: The value of the variable.
        problems: What ``check_schema`` found in it.

    Returns:
        The apps at their old indices: a key that is wrong is absent, an app or a route that is no
        mapping is empty.
    """
    if not isinstance(apps, list):
        return []
    sound = [dict(app) if isinstance(app, Mapping) else {} for app in apps]
    for app in sound:
        if isinstance(routes := app.get("routes"), list):
            app["routes"] = [dict(route) if isinstance(route, dict) else {} for route in routes]
    for found in problems:
        match found.path:
            case ("apps", int(index), "routes", int(number), str(key), *_):
                sound[index]["routes"][number].pop(key, None)
            case ("apps", int(), "routes", int()):
                pass
            case ("apps", int(index), key, *_):
                sound[index].pop(key, None)
    return copy.deepcopy(sound)


def check_apps(apps: list[App]) -> Iterator[Problem]:
    """Check what the schema cannot: apps against each other and against Debian.

    Args:
        apps: Sound apps with their defaults.

    Yields:
        A problem for each thing that two apps claim and for each path that cannot work.
    """
    yield from _check_unique(apps, "name")
    yield from _check_unique(apps, "port")
    for index, app in enumerate(apps):
        if app.get("name") in RESERVED_NAMES:
            path = ("apps", index, "name")
            yield problem(
                path, f"is {show(app['name'])}", "a name that is no user or unit of Debian's or Paddock's own"
            )
    yield from _check_server_names(apps)
    yield from _check_paths(apps)
    yield from _check_claims(apps)


def _name(apps: list[App], index: int) -> str:
    return str(apps[index].get("name", f"apps[{index}]"))


def _check_unique(apps: list[App], key: str) -> Iterator[Problem]:
    first: dict[Any, int] = {}
    for index, app in enumerate(apps):
        if key in app and (other := first.setdefault(app[key], index)) != index:
            pair = f"apps[{other}] {_name(apps, other)} and apps[{index}] {_name(apps, index)}"
            yield problem(
                ("apps", index, key),
                f"is {show(app[key])}",
                f"a {key} that no other app has ({pair} share it)",
            )


def _server_names(app: App) -> frozenset[str]:
    return frozenset(name.lower() for name in app.get("server_names", []))


def _check_server_names(apps: list[App]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, app in enumerate(apps):
        names = _server_names(app)
        for name in sorted(names):
            other = first.setdefault(name, index)
            if names != _server_names(apps[other]):
                yield problem(
                    ("apps", index, "server_names"),
                    f"is {show(app['server_names'])}",
                    f"the same list for {_name(apps, other)} and {_name(apps, index)}, because"
                    f" both have {name}",
                )
                break


def _routes(apps: list[App]) -> Iterator[tuple[int, int, dict[str, Any]]]:
    for index, app in enumerate(apps):
        for number, route in enumerate(app["routes"]):
            yield index, number, route


def _check_paths(apps: list[App]) -> Iterator[Problem]:
    for index, number, route in _routes(apps):
        for key in {"path", "to"} & route.keys():
            where = ("apps", index, "routes", number, key)
            state = f"is {show(route[key])}"
            if re.search(r"//|/\.\.?(/|\Z)", route[key]):
                yield problem(where, state, "a path without //, /./ and /../")
            elif route.get("exact") is False and not route[key].endswith("/"):
                yield problem(where, state, "a path that ends in /, unless the route says exact: true")


def _check_claims(apps: list[App]) -> Iterator[Problem]:
    first: dict[Any, tuple[int, int]] = {}
    for index, number, route in _routes(apps):
        if "path" not in route or "exact" not in route:
            continue
        claim = (_server_names(apps[index]), route["path"], route["exact"])
        other = first.setdefault(claim, (index, number))
        if other != (index, number):
            yield problem(
                ("apps", index, "routes", number, "path"),
                f"is {show(route['path'])}",
                f"a path that no other route has (apps[{other[0]}].routes[{other[1]}] of"
                f" {_name(apps, other[0])} and this one of {_name(apps, index)} share it)",
            )
