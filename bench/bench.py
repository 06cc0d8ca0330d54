#!/usr/bin/env python3
"""Measure what the README promises, on fleets of its own: 1 balancer, 2 to 10 backends.

`bench.py [STAGE...]` prints a table, and writes it to build/bench.json. With all stages it also writes
docs/benchmarks.md, with a plot of releases in docs/releases.svg. Times are whole-command wall-clock seconds;
what is compared is measured in the same run, in turns. A stage that breaks is a missed row, and the figures
of the other stages are kept. Exit status 0 only if each stage could be measured.
"""

from __future__ import annotations

import ast
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build/bench"
NODES = ROOT / "molecule/testbed/nodes"
APPS = ROOT / "molecule/testbed/apps"
HOSTS = {"lb1": "balancers", "app1": "backends", "app2": "backends"}
# All takes half an hour; BENCH_SIZES=3 BENCH_ROUNDS=2 leaves out the other fleets and a round.
SIZES = tuple(map(int, os.environ.get("BENCH_SIZES", "2,3,5,10").split(",")))
RATE = 25
# molecule/testbed/ledger.py answers the last three.
PROBE = ("--get", "/requestme", "--ws", "/welcome/ws", "--slow", "/requestme?seconds=5")
PROBE += ("--post", "/requestme", "--ledger", "/requestme?run={run}")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
LOAD_SECONDS = 6
CONNECTIONS = 16
SSH_OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")


def sh(*argv: str, **kwargs: Any) -> str:
    """Run a program; returns what it printed, raises with what it said where it fails."""
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, **kwargs)
    if done.returncode != 0:
        raise SystemExit(f"`{' '.join(argv)}` failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def say(text: str) -> None:
    """Show progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def timed(action: Callable[[], str]) -> tuple[float, str]:
    """Seconds that an action takes, and what it returned."""
    started = time.monotonic()
    result = action()
    return time.monotonic() - started, result


class Row(NamedTuple):
    """A figure. `met` is whether the promise is kept; None where nothing is promised."""

    figure: str
    measured: str
    promised: str = "reported"
    met: bool | None = None


def at_most(figure: str, value: float, limit: float, unit: str, detail: str = "", also: bool = True) -> Row:
    """A figure with an upper limit; `also` is what else has to hold."""
    measured = f"{value:,.{0 if unit in ('', ' lines') else 1}f}{unit}" + (f" ({detail})" if detail else "")
    return Row(figure, measured, f"at most {limit:,g}{unit}", value <= limit and also)


def sizes() -> list[Row]:
    """Sizes of the Python that Paddock runs, in lines."""
    files = [path for top in ("roles", "plugins") for path in (ROOT / top).rglob("*.py")]
    lines = [len(path.read_text().splitlines()) for path in files]
    classes = [
        (node.end_lineno or 0) - node.lineno + 1
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    specs = {
        path.parts[-3]: yaml.safe_load(path.read_text())
        for path in ROOT.glob("roles/*/meta/argument_specs.yml")
    }
    inputs, role = max((len(spec["argument_specs"]["main"]["options"]), role) for role, spec in specs.items())
    return [
        at_most("Python in roles and plugins", sum(lines), 4500, " lines"),
        at_most("the largest file", max(lines), 300, " lines"),
        at_most("the largest class", max(classes), 150, " lines"),
        at_most("the median file", median(lines), 80, " lines"),
        at_most("inputs of a role, the most", inputs, 12, "", role),
    ]


class Release(NamedTuple):
    """Medians over some releases of a fleet: seconds, and requests lost of those sent meanwhile."""

    backends: int
    release: float
    rollback: float
    slowest_ms: float
    lost: int
    sent: int


class Fleet:
    """Fresh nodes and how to reach them."""

    def __init__(self, hosts: Mapping[str, str] = HOSTS) -> None:
        lines = sh(str(NODES), "up", "bench", *hosts).splitlines()
        self.nodes = {node["instance"]: node for node in map(json.loads, lines)}
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        (WORK / "group_vars").symlink_to(ROOT / "inventory/group_vars")
        inventory: dict[str, Any] = {group: {"hosts": {}} for group in hosts.values()}
        # The plain script shares connections, as Ansible does.
        sockets = tempfile.mkdtemp(prefix="paddock-")  # a socket's path must be short
        shared = ("ControlMaster=auto", "ControlPersist=60", f"ControlPath={sockets}/%C", "User=root")
        config = "".join(f"{option}\n" for option in ("Host *", *SSH_OPTIONS, *shared))
        for name, node in self.nodes.items():
            inventory[hosts[name]]["hosts"][name] = {
                "ansible_host": "127.0.0.1",
                "ansible_port": node["port"],
                "ansible_user": "root",
                "ansible_ssh_private_key_file": node["identity_file"],
                "ansible_ssh_common_args": " ".join(f"-o {option}" for option in SSH_OPTIONS),
                "fleet_address": node["fleet_address"],
            }
            config += f"Host {name}\nHostName 127.0.0.1\nPort {node['port']}\n"
            config += f"IdentityFile {node['identity_file']}\n"
        self.all = inventory
        self.inventory = WORK / "inventory.yml"
        self.inventory.write_text(json.dumps(inventory))
        self.ssh_config = WORK / "ssh_config"
        self.ssh_config.write_text(config)

    def use(self, backends: int) -> None:
        """Have the first backends only in the inventory."""
        hosts = dict(list(self.all["backends"]["hosts"].items())[:backends])
        self.inventory.write_text(json.dumps({**self.all, "backends": {"hosts": hosts}}))

    def command(self, playbook: str, *arguments: str) -> list[str]:
        """The command of a run."""
        return ["ansible-playbook", "-i", str(self.inventory), playbook, *arguments]

    def site(self, *arguments: str) -> str:
        """Run the playbook."""
        return sh(*self.command("site.yml", *arguments))

    def probed(self, playbook: str, *arguments: str) -> dict[str, Any]:
        """Run a playbook while the probe asks the balancer; returns the probe's report."""
        report = WORK / "probe.json"
        probe = [sys.executable, "-m", "paddock_probe", "--url", self.nodes["lb1"]["url"], *PROBE]
        probe += ["--rate", str(RATE)]
        probe += ["--json", str(report), "--picture", str(WORK / "probe.svg"), "--quiet", "--"]
        # Its own verdict is in the report: a lost request is a figure here, not a reason to stop.
        subprocess.run(
            [*probe, *self.command(playbook, *arguments)], cwd=ROOT, capture_output=True, check=False
        )
        content: dict[str, Any] = json.loads(report.read_text())
        if content["command"]["rc"] != 0:
            raise SystemExit(f"{playbook} failed under the probe; its log is the run's own")
        return content

    def on(self, host: str, script: str) -> str:
        """Run a shell script on a host."""
        return sh("ssh", "-F", str(self.ssh_config), host, "sh", "-eu", input=script)

    def archive(self, host: str) -> None:
        """Keep what the roles have written on a host, for the plain script to write too."""
        ours = "etc/paddock etc/systemd/system/{requestme,welcome}*"
        nginx = "etc/nginx/nginx.conf etc/systemd/system/nginx.service.d"
        paths = nginx if host == "lb1" else ours
        with (WORK / f"{host}.tar").open("wb") as out:
            command = f"cd / && bash -c 'tar -c {paths}'"
            subprocess.run(["ssh", "-F", str(self.ssh_config), host, command], stdout=out, check=True)

    def serves(self) -> bool:
        """Whether both apps answer through the balancer."""
        url = self.nodes["lb1"]["url"]
        for path in ("/", "/welcome/"):
            with urllib.request.urlopen(url + path, timeout=10) as response:
                if response.status != 200:
                    return False
        return True


# The article's set-up as written: four sync workers, and Nginx with nothing but upstream and
# proxy_pass (and what Nginx needs to start a second time on the host).
ARTICLE_NGINX = """
pid /run/article-nginx.pid;
worker_processes auto;
events {{}}
http {{
    access_log /var/log/nginx/article.log;
    upstream backends {{ {servers} }}
    server {{ listen 81; location / {{ proxy_pass http://backends; }} }}
}}
"""


def start_article(fleet: Fleet) -> None:
    """Run the article's set-up next to ours, on the same nodes, with the same release."""
    for host in ("app1", "app2"):
        fleet.on(
            host,
            "cd $(sed -n 's/^WorkingDirectory=//p' /etc/systemd/system/requestme-blue.service)\n"
            "systemd-run -q --unit=article --working-directory=$PWD"
            " ../venv/bin/gunicorn -w 4 -b 0.0.0.0:9000 app:app",
        )
    servers = " ".join(f"server {fleet.nodes[host]['fleet_address']}:9000;" for host in ("app1", "app2"))
    fleet.on(
        "lb1",
        f"cat > /etc/nginx/article.conf <<'EOF'{ARTICLE_NGINX.format(servers=servers)}EOF\n"
        "systemd-run -q --unit=article nginx -c /etc/nginx/article.conf -g 'daemon off;'",
    )
    time.sleep(2)


def cpu_seconds(fleet: Fleet, units: dict[str, str]) -> float:
    """CPU time that units have used so far, over all their processes."""
    script = """
import glob, os, sys
tick = os.sysconf("SC_CLK_TCK")
total = 0
for path in glob.glob("/proc/[0-9]*"):
    try:
        if f"/{sys.argv[1]}" in open(path + "/cgroup").read():
            fields = open(path + "/stat").read().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / tick  # with its dead children
    except OSError:
        pass
print(total)
"""
    return sum(float(fleet.on(host, f"python3 - {unit} <<'EOF'{script}EOF")) for host, unit in units.items())


def load(fleet: Fleet, port: int, path: str, units: dict[str, str]) -> tuple[float, float]:
    """Requests a second, and CPU milliseconds a request on all nodes, under closed-loop load."""
    url = f"http://{fleet.nodes['lb1']['fleet_address']}:{port}{path}"
    before = cpu_seconds(fleet, units)
    out = sh("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{LOAD_SECONDS}s", url)
    after = cpu_seconds(fleet, units)
    requests = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]
    if "Non-2xx" in out or not requests:
        raise SystemExit(f"{url} does not answer 200 under load:\n{out}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])  # type: ignore[index]
    return rate, (after - before) * 1000 / requests


def large_pool(fleet: Fleet) -> float:
    """Seconds until Nginx runs, checked, what 200 backends of five apps need."""
    hosts = {f"app{number}": {"fleet_address": f"192.0.2.{number}"} for number in range(1, 201)}
    inventory = WORK / "large.yml"
    inventory.write_text(json.dumps({**fleet.all, "backends": {"hosts": hosts}}))
    apps = [
        {"name": f"shop{n}", "framework": "flask", "port": 9000 + n, "routes": [{"path": f"/{n}/"}]}
        for n in range(5)
    ]
    role = (
        "--playbook-dir",
        "playbooks",
        "-m",
        "ansible.builtin.include_role",
        "-a",
        "name=paddock.fleet.nginx",
    )
    role += ("-e", json.dumps({"apps": apps}))
    took, said = timed(lambda: sh("ansible", "-i", str(inventory), "balancers", "-b", *role))
    if "changed: true" not in said and '"changed": true' not in said and "CHANGED" not in said:
        raise SystemExit(f"the large pool changed nothing:\n{said}")
    return took


def peak_memory(fleet: Fleet, host: str) -> str:
    """Largest memory of a node so far, its page cache included."""
    pid = sh("podman", "inspect", "--format", "{{.State.Pid}}", fleet.nodes[host]["container"]).strip()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            node = path.split("/init.scope")[0]
            base = Path("/sys/fs/cgroup") / controllers / node.lstrip("/")
            for name in ("memory.peak", "memory.max_usage_in_bytes"):
                if (base / name).exists():
                    return f"{int((base / name).read_text()) / 2**20:.0f} MiB"
    return "not told on this machine"


def readdress(archive: bytes, table: dict[str, str]) -> bytes:
    """Replace the addresses in the files of an archive: the next fleet's nodes have others."""
    out = io.BytesIO()
    pattern = re.compile("|".join(rf"\b{re.escape(address)}\b" for address in table))
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            file = old.extractfile(member)
            content = file.read() if file else b""
            content = pattern.sub(lambda match: table[match[0]], content.decode()).encode()
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return out.getvalue()


def edited_source(text: str, ledger: bool = False) -> Path:
    """A copy of app_src with one line of requestme changed; with a ledger, as the probe needs it."""
    target = WORK / f"app_src_{text}"
    if ledger:
        sh(str(APPS), str(target))
    else:
        shutil.copytree(ROOT / "app_src", target)
    app = target / "requestme/app.py"
    app.write_text(app.read_text().replace("Thank you for requesting me.", text))
    return target


def releases() -> list[Row]:
    """Release and roll back on fleets of some sizes, under the probe, and without load."""
    names = {"lb1": "balancers"} | {f"app{number}": "backends" for number in range(1, max(SIZES) + 1)}
    fleet = Fleet(names)
    found, quiet = [], []
    for size in SIZES:
        say(f"releases to {size} backends, under {RATE} requests/s")
        fleet.use(size)
        fleet.site("-e", f"fleet_app_src={edited_source(f'size{size}', ledger=True)}")
        if size == 3:
            quiet = without_load(fleet)
        reports = []
        for number in range(ROUNDS):
            source = edited_source(f"size{size}release{number}", ledger=True)
            new = fleet.probed("site.yml", "-e", f"fleet_app_src={source}")
            reports.append((new, fleet.probed("playbooks/rollback.yml")))
        both = [one for pair in reports for one in pair]
        classes = [kind for one in both for kind in one["classes"] if kind["gates"]]
        found.append(
            Release(
                size,
                *(median(seconds(pair[which]) for pair in reports) for which in (0, 1)),
                max(phase["latency_ms"]["max"] for pair in reports for phase in pair[0]["phases"][1:2]),
                sum(one["failed"] for one in classes),
                sum(one["sent"] for one in classes),
            )
        )
    if len(SIZES) > 2:
        draw(found, ROOT / "docs/releases.svg")
    return [*quiet, *map(release_row, found)]


def without_load(fleet: Fleet) -> list[Row]:
    """A release of one line and its rollback, in turns with runs that have nothing to do."""
    idle, new, back = [], [], []
    for number in range(ROUNDS):
        source = f"fleet_app_src={edited_source(f'quiet{number}', ledger=True)}"
        new.append(timed(lambda source=source: fleet.site("-e", source))[0])
        idle.append(timed(lambda source=source: fleet.site("-e", source))[0])
        back.append(timed(lambda: sh(*fleet.command("playbooks/rollback.yml")))[0])
    more = median(a - b for a, b in zip(new, idle, strict=True))
    return [
        at_most(
            "a one-line release to 3 backends, longer than a run with nothing to do",
            more,
            12,
            " s",
            f"{median(new):.1f} s - {median(idle):.1f} s",
        ),
        at_most("its rollback", median(back), 6, " s"),
    ]


def idle_runs() -> list[Row]:
    """Runs with nothing to do: 3 hosts against a ping, and 20 hosts against 3."""
    names = {"lb1": "balancers"} | {f"app{number}": "backends" for number in range(1, 20)}
    say("runs with nothing to do, 20 hosts and 3")
    fleet = Fleet(names)
    fleet.site()
    ping = ["ansible", "-i", str(fleet.inventory), "-m", "ansible.builtin.ping", "all"]
    few, many, pings, changed = [], [], [], 0
    for _ in range(ROUNDS):
        fleet.use(2)
        pings.append(timed(lambda: sh(*ping))[0])
        took, said = timed(fleet.site)
        few.append(took)
        changed += sum(map(int, re.findall(r"changed=(\d+)", said)))
        fleet.use(19)
        many.append(timed(fleet.site)[0])
    against = [a / b for a, b in zip(few, pings, strict=True)]
    detail = f"{median(few):.1f} s / {median(pings):.1f} s, changed={changed}"
    larger = [a / b for a, b in zip(many, few, strict=True)]
    return [
        at_most(
            "a run with nothing to do, 3 hosts, against `ansible -m ping all`",
            median(against),
            4,
            "x",
            detail,
            changed == 0,
        ),
        at_most("the same, 20 hosts against 3", median(larger), 3, "x", f"{median(many):.1f} s"),
    ]


def seconds(report: dict[str, Any]) -> float:
    """How long the command took that the probe went along with."""
    return report["command"]["ended"] - report["command"]["started"]


def draw(found: list[Release], path: Path) -> None:
    """Plot the seconds of releases and rollbacks over the number of backends."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "paddock"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    sizes = [one.backends for one in found]
    axes.plot(sizes, [one.release for one in found], "o-", color="#0072b2", label="new release")
    axes.plot(sizes, [one.rollback for one in found], "s-", color="#d55e00", label="rollback")
    lost, sent = sum(one.lost for one in found), sum(one.sent for one in found)
    title = f"Seconds of a release and of a rollback ({lost} of {sent:,} requests lost meanwhile)"
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("backends (all on the cores of one machine)")
    axes.set_ylabel("seconds")
    axes.set_xticks(sizes)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def machine() -> str:
    """The machine in a line."""
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20  # type: ignore[index]
    model = cpu[1] if cpu else platform.machine()
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}; all nodes share it"
    )


def first_deploys() -> list[Row]:
    """Bare nodes to serving, ours and by a plain script; between the two, requests to our fleet."""
    say("ours: bare nodes to serving")
    fleet = Fleet()
    ours, _ = timed(fleet.site)
    if not fleet.serves():
        raise SystemExit("the fleet does not serve")
    for host in HOSTS:
        fleet.archive(host)
    kept = {host: (WORK / f"{host}.tar").read_bytes() for host in HOSTS}
    addresses = {node["fleet_address"]: name for name, node in fleet.nodes.items()}
    served = requests(fleet)

    say("the plain script: bare nodes to serving")
    fleet = Fleet()
    table = {old: fleet.nodes[name]["fleet_address"] for old, name in addresses.items()}
    for host, content in kept.items():
        (WORK / f"{host}.tar").write_bytes(readdress(content, table))
    plain, _ = timed(lambda: sh(str(ROOT / "bench/plain.sh"), str(fleet.ssh_config), str(WORK), *HOSTS))
    if not fleet.serves():
        raise SystemExit("the plain script's fleet does not serve")
    both = f"{ours:.1f} s / {plain:.1f} s"
    return [
        at_most("bare nodes to serving, against a plain shell script", ours / plain, 1.5, "x", both),
        *served,
    ]


def requests(fleet: Fleet) -> list[Row]:
    """What requests cost on a fleet that serves, against the article's set-up, and a large pool."""
    say(f"requests through the balancer, ours and the article's in turns, {LOAD_SECONDS} s each")
    start_article(fleet)
    units = {"lb1": "nginx.service", "app1": "requestme-", "app2": "requestme-"}
    article_units = dict.fromkeys(units, "article.service")
    loads = [
        (load(fleet, 80, "/requestme", units), load(fleet, 81, "/requestme", article_units))
        for _ in range(ROUNDS)
    ]
    memory = peak_memory(fleet, "app1")
    say("a pool of 200 backends")
    large = large_pool(fleet)
    return [
        at_most("200 backends of 5 apps: rendered, checked, run by Nginx", large, 5, " s"),
        Row("requests/s, against the article's set-up", ratio([(a[0], b[0]) for a, b in loads], "{:.0f}")),
        Row(
            "CPU a request on all nodes, against the article's set-up",
            ratio([(a[1], b[1]) for a, b in loads], "{:.2f} ms"),
        ),
        Row("peak memory of a backend node, page cache included", memory),
    ]


def release_row(one: Release) -> Row:
    """What clients saw of the releases of a fleet."""
    return Row(
        f"{one.backends} backends under {RATE} requests/s, one of 5 s always in flight:"
        " lost; slowest other request; new release, rollback",
        f"{one.lost} of {one.sent:,}; {one.slowest_ms:.0f} ms; {one.release:.1f} s, {one.rollback:.1f} s",
        "0 lost; at most 500 ms",
        one.lost == 0 and one.slowest_ms <= 500,
    )


def ratio(pairs: list[tuple[float, float]], form: str) -> str:
    """Median of the ratios of pairs, and the two medians."""
    ours, theirs = (form.format(median(column)) for column in zip(*pairs, strict=True))
    return f"{median(a / b for a, b in pairs):.2f}x ({ours} / {theirs})"


STAGES = {
    "idle": idle_runs,
    "releases": releases,
    "first-deploys": first_deploys,
    "sizes": sizes,
}


def measured(stage: str) -> tuple[list[Row], bool]:
    """The rows of a stage, and whether it went through."""
    try:
        return STAGES[stage](), True
    except (SystemExit, OSError, ValueError) as problem:
        say(f"{stage}: {problem}")
        return [Row(f"stage {stage}", "could not be measured", "a figure", False)], False


def main(names: list[str]) -> int:
    """Measure, print and write; returns the exit status."""
    if unknown := [name for name in names if name not in STAGES]:
        print(f"unknown stage {unknown[0]}; allowed: {', '.join(STAGES)}", file=sys.stderr)
        return 2
    if not shutil.which("wrk"):
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        sh(*sudo, "apt-get", "install", "-qy", "wrk")
    try:
        found = [measured(stage) for stage in names or STAGES]
    finally:
        subprocess.run([NODES, "down", "bench"], check=False)
    rows = [row for stage, _ in found for row in stage]
    table = "| figure | measured | promised | met |\n| --- | --- | --- | --- |\n"
    words = {True: "yes", False: "**missed**", None: "-"}
    table += "".join(
        f"| {row.figure} | {row.measured} | {row.promised} | {words[row.met]} |\n" for row in rows
    )
    (ROOT / "build/bench.json").write_text(json.dumps([row._asdict() for row in rows], indent=1))
    intro = f"Written by `make bench`: medians of {ROUNDS}, taken in one run.\n\nMachine: {machine()}."
    plot = "![Seconds of a release and of a rollback, by the number of backends](releases.svg)"
    page = f"# Benchmarks\n\n{intro}\n\n{table}" + (f"\n{plot}\n" if len(SIZES) > 2 else "")
    if not names:
        (ROOT / "docs/benchmarks.md").write_text(page)
    print(page)
    return int(not all(ok for _, ok in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
