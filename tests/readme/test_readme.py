"""The README and the pages are true: their commands are run, in a copy of the checkout, in their order.

The copy's demo has names, addresses and a port of its own, so that it meets no other demo.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
with socket.socket() as probe, socket.socket() as other:
    probe.bind(("127.0.0.1", 0))
    other.bind(("127.0.0.1", 0))
    PORT, TLS_PORT = (str(one.getsockname()[1]) for one in (probe, other))
PAGES = ("README.md", "docs/deploy.md", "docs/operate.md", "docs/tls.md")
NETWORK = f"10.77.{100 + zlib.crc32(bytes(ROOT)) % 150}."
OURS = {
    "inventory/demo.yml": {
        "connect demo": "connect readme",
        "10.77.0.": NETWORK,
        "8088": PORT,
        "8443": TLS_PORT,
    },
    "Makefile": {"start demo": "start readme", "down demo": "down readme", "8088": PORT},
    "tools/show_demo.py": {"8088": PORT},
}
# Nobody has these machines: the fleet is only listed.
NOT_OURS = re.compile(r"^(ansible-playbook -i inventory/(?:production|single)\.yml site\.yml)$", re.MULTILINE)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of what git knows of, with the tools of this checkout."""
    copy = tmp_path_factory.mktemp("readme") / "paddock"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in files:
        if (ROOT / name).is_symlink() or (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    # What the test bed calls the nodes of this copy.
    nodes = f"paddock-readme-{hashlib.sha256(str(copy.resolve()).encode()).hexdigest()[:4]}-"
    for name, changes in OURS.items():
        text = (copy / name).read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        (copy / name).write_text(text)
    for name in PAGES:
        text = (copy / name).read_text()
        for old, new in {"10.77.0.": NETWORK, "8088": PORT, "8443": TLS_PORT, "paddock-demo-": nodes}.items():
            text = text.replace(old, new)
        (copy / name).write_text(text)
    yield copy
    subprocess.run(["make", "demo-down"], cwd=copy, check=True, capture_output=True)


def blocks(page: Path) -> list[str]:
    """The shell commands of a page."""
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def test_every_command(checkout: Path) -> None:
    """Each block succeeds, and the answers are what the page says."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ANSIBLE_", "VIRTUAL_", "MAKE"))
    }
    environment["PATH"] = os.environ["PATH"].replace(f"{ROOT}/.venv/bin:", "")
    environment["UV_SYSTEM_CERTS"] = "true"  # a company's proxy may sign for the package index
    outputs: list[str] = []
    activate = ""
    for block in (block for page in PAGES for block in blocks(checkout / page)):
        script = NOT_OURS.sub(r"\1 --list-hosts", block)
        if "activate" in block:
            activate = block
        done = subprocess.run(
            ["bash", "-eu", "-c", activate + script],
            cwd=checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-4000:]}"
        outputs.append(done.stdout)
    everything = "".join(outputs)
    assert outputs[0].splitlines()[-1] == f"http://127.0.0.1:{PORT}"
    assert "Welcome to Tornado..!!" in outputs[1]
    assert "open\n" in everything
    assert re.search(r"app3 .* failed=0", everything)
    assert re.search(r"^PASS: 0 of [\d,]+ requests failed", everything, re.MULTILINE)
    rolled_back = re.search(r"requestme on app1: (\w+) -> (\w+)", everything)
    assert rolled_back
    assert re.search(rf"app1 +requestme +{rolled_back[1]} +{rolled_back[2]} +", everything)
    assert re.search(r"app2 .* drained +new disk, ", everything)
    assert (checkout / "build/probe.svg").exists()
    # Of make security; no client knows the authority that was made for this test.
    assert re.search(r"TLS.* compliant, by an authority that is not known here", everything)
    hosts = {
        subprocess.run(
            [
                "python3",
                "-c",
                "import ssl, urllib.request as u;"
                " trust = ssl.create_default_context(cafile='build/authority.pem');"
                f" print(u.urlopen('http://127.0.0.1:{PORT}/', context=trust).read())",
            ],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=True,
        )
        .stdout.split('"host":"')[1]
        .split('"')[0]
        for _ in range(12)
    }
    assert hosts == {"app1", "app2", "app3"}


def test_links_lead_somewhere() -> None:
    """Every relative link of the READMEs is a file."""
    pages = [ROOT / "README.md", *ROOT.glob("roles/*/README.md"), *ROOT.glob("docs/*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
