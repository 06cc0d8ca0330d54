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


def test_numbers_of_the_limits() -> None:
    """The table of docs/limits.md has the defaults of the schema and of the roles."""
    schema = json.loads((ROOT / "inventory/apps.schema.json").read_text())
    known = {name: key.get("default") for name, key in schema["$defs"]["app"]["properties"].items()}
    for defaults in ROOT.glob("roles/*/defaults/main.yml"):
        known |= yaml.safe_load(defaults.read_text())
    page = (ROOT / "docs/limits.md").read_text()
    rows = re.findall(r"^\| .* \| `(\S+)` \| `(\w+)`", page, re.MULTILINE)
    assert len(rows) > 5
    assert {name: value for value, name in rows} == {name: str(known[name]) for _, name in rows}


def test_settings_of_the_limits() -> None:
    """Each setting that docs/limits.md names is there."""
    page = (ROOT / "docs/limits.md").read_text()
    settings = (ROOT / "docs/settings.md").read_text()
    prefixes = "|".join(folder.name for folder in (ROOT / "roles").iterdir())
    named = set(re.findall(rf"`((?:fleet|{prefixes})_\w+)", page)) - {"app_src"}
    assert len(named) > 8
    assert [name for name in sorted(named) if f"| `{name}` |" not in settings] == []
