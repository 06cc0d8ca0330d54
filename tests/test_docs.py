"""What the pages say is so."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def test_settings_are_current() -> None:
    """`make docs` was run after the last change of a setting."""
    spec = importlib.util.spec_from_file_location("write_settings", ROOT / "tools/write_settings.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    assert (ROOT / "docs/settings.md").read_text() == module.page()
    for role in module.ROLES:
        assert (role / "README.md").read_text() == module.readme(role)


def test_numbers_of_the_limits() -> None:
    """The table of docs/limits.md has the defaults of the schema and of the roles."""
    schema = json.loads((ROOT / "plugins/plugin_utils/fleet_rules/apps.schema.json").read_text())
    known = {name: key.get("default") for name, key in schema["$defs"]["app"]["properties"].items()}
    for path in ROOT.glob("roles/*/defaults/main.yml"):
        defaults = yaml.safe_load(path.read_text())
        known |= defaults
        for name, keys in defaults.items():
            known |= {f"{name}.{key}": value for key, value in keys.items()} if isinstance(keys, dict) else {}
    page = (ROOT / "docs/limits.md").read_text()
    rows = re.findall(r"^\| .* \| `(\S+)` \| `([\w.]+)`", page, re.MULTILINE)
    assert len(rows) > 5
    assert {name: value for value, name in rows} == {name: str(known[name]) for _, name in rows}


def test_settings_of_the_limits() -> None:
    """Each setting that docs/limits.md names is there."""
    page = (ROOT / "docs/limits.md").read_text()
    settings = (ROOT / "docs/settings.md").read_text()
    prefixes = "|".join(folder.name for folder in (ROOT / "roles").iterdir())
    named = set(re.findall(rf"`((?:fleet|{prefixes})_[\w.]+)", page)) - {"app_src"}
    assert len(named) > 8
    assert [name for name in sorted(named) if f"| `{name}` |" not in settings] == []


def test_tests_of_the_security_page() -> None:
    """Each attack has a test, and each test that docs/security.md names is there."""
    page = (ROOT / "docs/security.md").read_text()
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 16))
    assert [number for number, tests in rows if "::" not in tests] == []
    folders = (ROOT / "molecule/tests", ROOT / "tests")
    for path, function in re.findall(r"`([\w/]+\.py)::(\w+)`", page):
        files = [folder / path for folder in folders if (folder / path).exists()]
        assert len(files) == 1, path
        assert f"\ndef {function}(" in files[0].read_text(), f"{path}::{function}"
