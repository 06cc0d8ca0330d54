"""Each role says the same in its defaults, its argument specification and its manual."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = sorted(path.parents[1] for path in (Path(__file__).parents[1] / "roles").glob("*/tasks/main.yml"))


@pytest.fixture(params=ROLES, ids=lambda path: path.name)
def role(request: pytest.FixtureRequest) -> Path:
    """Return the folder of a role."""
    return request.param


def load(path: Path) -> Any:
    """Read a YAML file; one that is absent says nothing."""
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def defaults(role: Path) -> dict[str, Any]:
    """Return the variables that a user may set."""
    return load(role / "defaults/main.yml")


def sources(role: Path) -> Iterator[Path]:
    """Return the files of a role that Ansible evaluates."""
    for folder in ("tasks", "handlers", "vars", "templates", "action_plugins"):
        yield from sorted(path for path in (role / folder).glob("**/*.*") if path.suffix != ".pyc")


def test_argument_specs(role: Path) -> None:
    """Ansible checks each variable, and the specification tells the real default.

    Ansible never applies the defaults of a specification, so nothing else would notice.
    """
    specs = load(role / "meta/argument_specs.yml")["argument_specs"]
    for entry in specs.values():
        found = {name: option.get("default") for name, option in entry["options"].items()}
        assert found == defaults(role)


def test_defaults_are_commented(role: Path) -> None:
    """The defaults are the manual: a comment above each variable."""
    lines = (role / "defaults/main.yml").read_text().splitlines()
    above = {
        line.partition(":")[0]: lines[number - 1] for number, line in enumerate(lines) if line[:1].isalpha()
    }
    assert list(above) == list(defaults(role))
    assert {name: line for name, line in above.items() if not line.startswith("# ")} == {}


def test_defaults_are_in_the_readme(role: Path) -> None:
    """The role's page names each variable."""
    readme = (role / "README.md").read_text()
    assert [name for name in defaults(role) if f"`{name}`" not in readme] == []


def test_variables_carry_the_name_of_the_role(role: Path) -> None:
    """No role reads a variable by accident that was meant for another."""
    named = [*defaults(role), *load(role / "vars/main.yml")]
    assert [name for name in named if not re.match(rf"(__)?{role.name}_", name)] == []


def test_defaults_are_used(role: Path) -> None:
    """What a user may set has an effect."""
    used = "".join(path.read_text() for path in sources(role))
    assert [name for name in defaults(role) if not re.search(rf"\b{name}\b", used)] == []


def definitions(node: object) -> Iterator[str]:
    """Return the private names that tasks define: vars, registered results, loop variables."""
    match node:
        case list():
            for item in node:
                yield from definitions(item)
        case dict():
            yield from node.get("vars") or ()
            yield from (node[key] for key in ("register", "loop_var", "index_var") if key in node)
            yield from node.get("ansible.builtin.set_fact") or ()
            for value in node.values():
                yield from definitions(value)


def test_private_variables(role: Path) -> None:
    """Each private variable that is read is defined, each that is defined is read."""
    private = re.compile(r"\b__[a-z]\w*(?<!__)\b")
    places: dict[str, int] = {}
    for path in sources(role):
        for name in private.findall(path.read_text()):
            places[name] = places.get(name, 0) + 1
    defined = set(load(role / "vars/main.yml"))
    for path in role.glob("action_plugins/*.py"):
        defined |= set(re.findall(r'"(__\w+)": ', path.read_text()))
    for path in role.glob("tasks/*.yml"):
        defined |= {name for name in definitions(load(path)) if name.startswith("__")}
    assert places.keys() - defined == set()
    assert {name for name in defined if places[name] < 2} == set()
