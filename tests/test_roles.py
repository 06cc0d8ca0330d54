"""Each role says the same in its defaults, its argument specification and its manual."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
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


def structures(role: Path) -> list[str]:
    """Return the variables that have keys of their own."""
    options = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return [name for name, option in options.items() if "options" in option]


def sources(role: Path) -> Iterator[Path]:
    """Return the files of a role that Ansible evaluates."""
    for folder in ("tasks", "handlers", "vars", "templates"):
        yield from sorted(path for path in (role / folder).glob("**/*.*") if path.suffix != ".pyc")
    yield from sorted(role.parents[1].glob(f"plugins/action/{role.name}_*.py"))


def spec_defaults(options: dict[str, Any]) -> dict[str, Any]:
    """Return what a specification tells of the defaults; that of a structure is made of its keys' own."""
    return {
        name: spec_defaults(option["options"]) if "options" in option else option.get("default")
        for name, option in options.items()
    }


def test_argument_specs(role: Path) -> None:
    """Ansible checks each variable, and the specification tells the real default.

    Ansible never applies the defaults of a specification, so nothing else would notice.
    """
    specs = load(role / "meta/argument_specs.yml")["argument_specs"]
    for entry in specs.values():
        assert spec_defaults(entry["options"]) == defaults(role)


def test_entry_points(role: Path) -> None:
    """A specification is of a file of tasks, and what the playbooks use has one."""
    entries = set(load(role / "meta/argument_specs.yml")["argument_specs"])
    assert entries <= {path.stem for path in role.glob("tasks/*.yml")}
    texts = "".join(path.read_text() for path in role.parents[1].glob("playbooks/**/*.yml"))
    used = re.findall(rf"name: paddock\.fleet\.{role.name}\n +tasks_from: (\w+)", texts)
    assert set(used) <= entries


def test_defaults_are_commented(role: Path) -> None:
    """The defaults are the manual: a comment above each variable, and above each key of a structure."""
    above, structure = {}, ""
    for before, line in pairwise((role / "defaults/main.yml").read_text().splitlines()):
        key = line.partition(":")[0].strip()
        if line[:1].isalpha():
            structure = f"{key}." if key in structures(role) else ""
            above[key] = before
        elif structure and re.match(r"  \w", line):
            above[f"{structure}{key}"] = before.strip()
    wanted = set(defaults(role))
    wanted |= {f"{name}.{key}" for name in structures(role) for key in defaults(role)[name]}
    assert above.keys() == wanted
    assert {name: line for name, line in above.items() if not line.startswith("# ")} == {}


def test_a_key_of_a_structure_alone(role: Path) -> None:
    """Who sets one key keeps the others: the role reads the structure joined with its defaults only."""
    joined = load(role / "vars/main.yml")
    used = "".join(path.read_text() for path in sources(role) if path.parent.name != "vars")
    for name in structures(role):
        assert joined[f"__{name}"] == f"{{{{ __{role.name}_default.{name} | combine({name}) }}}}"
        assert not re.search(rf"\b{name}\b", used)


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
    for action in role.parents[1].glob(f"plugins/action/{role.name}_*.py"):
        defined |= set(re.findall(r'"(__\w+)": ', action.read_text()))
    for path in role.glob("tasks/*.yml"):
        defined |= {name for name in definitions(load(path)) if name.startswith("__")}
    assert places.keys() - defined == set()
    assert {name for name in defined if places[name] < 2} == set()
