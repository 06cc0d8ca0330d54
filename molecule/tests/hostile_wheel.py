"""A package that runs its own code wherever an interpreter of its environment starts.

`hostile_wheel.py APP` puts it into the app's folder, with its line in the lock.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

# Root could write the first one. The app can write the second one.
OF_ROOT, OF_THE_APP = "/var/lib/hostile-wheel", "/var/lib/paddock/echo/hostile-wheel"
NOTE = f"""import os
for place in ({OF_ROOT!r}, {OF_THE_APP!r}):
    try:
        with open(place, "a") as notes:
            notes.write(str(os.getuid()) + " " + os.environ.get("RUNTIME_DIRECTORY", "none") + chr(10))
    except OSError:
        pass
"""
FILES = {"hostile.pth": f"import os; exec({NOTE!r})\n", "sitecustomize.py": NOTE}


def wheel(folder: Path, files: Mapping[str, str]) -> str:
    """Write a wheel of a package `hostile`, always with the same bytes.

    Args:
        folder: Where to.
        files: Contents of its files by name.

    Returns:
        Its line in a lock.
    """
    folder.mkdir(exist_ok=True)
    path = folder / "hostile-1.0-py3-none-any.whl"
    info = "hostile-1.0.dist-info"
    files = {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **files,
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name), content)
    return f"hostile==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def main(app: Path) -> None:
    """Put it into an app."""
    line = wheel(app / "wheels", FILES)
    with (app / "requirements.txt").open("a") as lock:
        lock.write(line)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
