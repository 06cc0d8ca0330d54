"""A judgement as a picture: who answered how often, and how fast, second by second."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .judge import Judgement, Second

# Okabe and Ito's colours, which people with any colour vision can tell apart.
RELEASES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
FAILED = "#D00000"
DURING = "#000000"
BARS = 300  # more seconds than this share a bar
NAMES = 10  # in the legend


def draw(judgement: Judgement, path: Path) -> None:
    """Write the picture, as .svg or .png.

    Raises:
        OSError: It cannot be written.
    """
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    answers, times = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    title = judgement.verdict if len(judgement.verdict) < 90 else f"{judgement.verdict[:88]}…"
    figure.suptitle(title, x=0.01, ha="left", weight="bold", color="black" if judgement.passed else FAILED)
    width = max(1, -(-len(judgement.seconds) // BARS))
    bars = [judgement.seconds[at : at + width] for at in range(0, len(judgement.seconds), width)]
    # The last second is hardly ever a whole one, and its bar would tell of a slump.
    if len(bars) > 1 and judgement.run.seconds < bars[-1][-1].second + 0.95 and not bars[-1][-1].failed:
        bars.pop()
    handles = _answers(answers, judgement, bars, width)
    handles += _latency(times, bars, width)
    for axes in (answers, times):
        for phase in judgement.phases:
            if phase.name == "during":
                axes.axvspan(phase.start, phase.end, color=DURING, alpha=0.08, lw=0, zorder=0)
                for edge in (phase.start, phase.end):
                    axes.axvline(edge, color=DURING, lw=0.9, ls=(0, (4, 3)))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd", lw=0.6)
        axes.set_axisbelow(True)
        axes.margins(x=0)
    if any(phase.name == "during" for phase in judgement.phases):
        what = "command runs" if judgement.run.command else "release changes"
        handles.append(Patch(color=DURING, alpha=0.08, lw=0, label=what))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same run gives the same file.
    with mpl.rc_context({"svg.hashsalt": "probe", "svg.fonttype": "path"}):
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def _answers(axes: Axes, judgement: Judgement, bars: list[list[Second]], width: int) -> list[Artist]:
    """Stack the answers a second, each release a colour and each backend a shade of it."""
    at = [bar[0].second for bar in bars]
    bottom = [0.0] * len(bars)
    handles: list[Artist] = []
    releases = list(dict.fromkeys(server.release for server in judgement.servers))
    backends = sorted({server.backend for server in judgement.servers})

    def stack(heights: list[float], label: str, **style: object) -> None:
        axes.bar(at, heights, width, bottom, align="edge", lw=0, **style)
        bottom[:] = [low + height for low, height in zip(bottom, heights, strict=True)]
        handles.append(Patch(label=label, lw=0, **style))

    for server in judgement.servers:
        key = server.release, server.backend
        heights = [sum(second.ok.get(key, 0) for second in bar) / len(bar) for bar in bars]
        colour = RELEASES[releases.index(server.release) % len(RELEASES)]
        shade = 0.6 * backends.index(server.backend) / max(len(backends) - 1, 1)
        stack(heights, f"{server.release} on {server.backend}", color=_lighter(colour, shade))
    del handles[NAMES:]
    heights = [sum(second.failed for second in bar) / len(bar) for bar in bars]
    stack(heights, "failed", facecolor=FAILED, edgecolor="white", hatch="xxx")
    axes.set_ylim(0, 1.08 * max([*bottom, 1]))
    axes.set_ylabel("requests/s")
    return handles


def _latency(axes: Axes, bars: list[list[Second]], width: int) -> list[Artist]:
    """Draw the slowest and the median answer of each second."""
    middle = [bar[0].second + width / 2 for bar in bars]
    top = [max((second.max for second in bar if second.max), default=math.nan) for bar in bars]
    p50 = [max((second.p50 for second in bar if second.p50), default=math.nan) for bar in bars]
    handles = axes.plot(middle, top, color="black", marker=".", lw=1, label="latency, max")
    handles += axes.plot(middle, p50, color="#777777", lw=1.5, label="latency, p50")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 1), max(high, 100))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.set_ylabel("latency, ms")
    axes.set_xlabel("seconds since the probe began")
    return handles


def _lighter(colour: str, share: float) -> tuple[float, ...]:
    return tuple(part + (1 - part) * share for part in to_rgb(colour))
