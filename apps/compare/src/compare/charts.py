"""The report's charts: matplotlib's SVG, whose colours are the page's own, so that they follow light and dark.

Each chart is drawn twice, for wide and for narrow screens: text keeps its size that way.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

INK, GRID = "#010101", "#020202"
# Stand-ins that no other colour is, and the page's variables for them.
COLOURS = {
    "spark": ["#a00001", "#a00002", "#a00003", "#a00004"],
    "flink": ["#0000a1", "#0000a2", "#0000a3", "#0000a4"],
}
_VARIABLES = {INK: "--ink", GRID: "--grid"} | {
    colour: f"--{engine}-{number}" for engine, found in COLOURS.items() for number, colour in enumerate(found, 1)
}
DASHES = ["-", "--", "-.", ":"]
MARKERS = ["o", "s", "^", "D"]
# Of the parts of a bar.
SHADES = (1.0, 0.55, 0.3)
SIZES = {"wide": (8.6, 4.4), "narrow": (4.1, 4.2)}


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    label: str
    engine: str
    x: Sequence[float]
    y: Sequence[float]
    # The 95 % interval of each point, where there is one.
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Bar:
    """One bar of a chart; `parts` lie one after the other, (name, value). Its colour is that of its series' lines."""

    label: str
    engine: str
    series: str
    parts: Sequence[tuple[str, float]]


def plain(value: float, _position: object = None) -> str:
    """Return a tick's label: 1000, 10k, 0.1."""
    if value >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


class Styles:
    """Gives every series of a report its own colour and dashes, the same in all charts."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], int] = {}

    def of(self, engine: str, label: str) -> tuple[str, str, str]:
        """Return colour, dashes and marker."""
        number = self._given.setdefault(
            (engine, label), sum(1 for known, _ in self._given if known == engine)
        )  # fmt: skip
        colours = COLOURS.get(engine, COLOURS["flink"])
        return colours[number % 4], DASHES[number % 4], MARKERS[number % 4]


Draw = Callable[[Axes, str], None]
# Characters in a line of a bar's label.
LABEL_WIDTH = {"wide": 48, "narrow": 20}


def lines(
    name: str, found: Sequence[Line], styles: Styles, *, x: str, y: str, log_x: bool = False, log_y: bool = False,
    marks: Sequence[float] = (), limits: tuple[float, float] | None = None,
) -> str:  # fmt: skip
    """Return a chart of lines as HTML; `marks` are x at which a line stands, `limits` those of y."""

    def draw(axes: Axes, _kind: str) -> None:
        for line in found:
            colour, dash, marker = styles.of(line.engine, line.label)
            marker = marker if len(line.x) <= 12 else ""
            axes.plot(line.x, line.y, color=colour, linestyle=dash, marker=marker, markersize=4, label=line.label)
            if line.low:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        for mark in marks:
            axes.axvline(mark, color=INK, linewidth=1, linestyle=":")
        for axis, is_log in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
            if is_log:
                (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(FuncFormatter(plain))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if limits:
            axes.set_ylim(*limits)

    return _both(name, draw, legend=len(found))


def bars(name: str, found: Sequence[Bar], styles: Styles, *, x: str) -> str:
    """Return a chart of lying bars as HTML."""

    parts = list(dict.fromkeys(name for bar in found for name, _ in bar.parts))

    def draw(axes: Axes, kind: str) -> None:
        for number, bar in enumerate(reversed(found)):
            left = 0.0
            for name, value in bar.parts:
                axes.barh(
                    number, value, left=left, height=0.66, color=styles.of(bar.engine, bar.series)[0],
                    alpha=SHADES[parts.index(name) % len(SHADES)], linewidth=0,
                )  # fmt: skip
                left += value
        if len(parts) > 1:
            # What the shades mean, in no engine's colour.
            for name, shade in zip(parts, SHADES, strict=False):
                axes.barh(0, 0, color=INK, alpha=shade, linewidth=0, label=name)
        labels = [textwrap.fill(bar.label, LABEL_WIDTH[kind]) for bar in reversed(found)]
        axes.set_yticks(range(len(found)), labels, fontsize=9)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(FuncFormatter(plain))
        axes.set_xlabel(x)

    height = max(1.6, 0.55 * len(found) + 0.9)
    return _both(name, draw, legend=len(parts) if len(parts) > 1 else 0, height=height)


def _both(name: str, draw: Draw, *, legend: int = 0, height: float | None = None) -> str:
    parts = []
    for kind, (width, usual) in SIZES.items():
        columns = 3 if kind == "wide" else 1
        extra = 0.24 * -(-legend // columns)
        parts.append(
            f'<div class="{kind}">{_svg(name, kind, draw, (width, (height or usual) + extra), columns, legend)}</div>'
        )
    return "".join(parts)


def _svg(name: str, kind: str, draw: Draw, size: tuple[float, float], columns: int, legend: int) -> str:
    identity = re.sub(r"\W+", "-", f"{name}-{kind}".lower())
    style: Any = {
        "svg.fonttype": "none", "svg.hashsalt": identity, "font.size": 10, "font.family": "sans-serif",
        "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": GRID,
        "grid.color": GRID, "axes.grid": True, "axes.spines.top": False, "axes.spines.right": False,
        "axes.axisbelow": True, "grid.linewidth": 0.7, "lines.linewidth": 1.8, "legend.frameon": False,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot(), kind)
        if legend:
            figure.legend(loc="outside lower center", ncols=columns, fontsize=9)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(stream.getvalue(), name, identity)


def _inline(text: str, name: str, identity: str) -> str:
    """Make a part of a page of an SVG file: names of its own, the page's colours, as wide as there is room."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{identity}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{identity}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    label = name.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        rf'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="\g<1>" role="img" aria-label="{label}">',
        text, count=1, flags=re.DOTALL,
    )  # fmt: skip
