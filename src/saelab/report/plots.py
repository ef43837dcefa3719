"""Figures as SVG text: pure functions from data to markup, the same bytes for the same data."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, 2008
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5B4B8A", "#7F7F7F")
MARKERS = "osD^vPX*"
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))
POINTS = 160  # of a training curve; more cannot be told apart at this width
INK = "#3b4248"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "saelab",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": "#aab2b8",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "grid.color": "#e6e9ec",
    "grid.linewidth": 0.7,
    "xtick.color": "#7c868d",
    "ytick.color": "#7c868d",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class Point:
    """One run in the frontier; `variant` and `seed` are indices into the page's colours and line
    styles.
    """

    variant: int
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """One run's curve. Undefined values are None and leave a gap."""

    variant: int
    seed: int
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Panel:
    """The runs of one variant: `log10` of the firing share of their live latents, and their dead
    shares.
    """

    title: str
    variant: int
    alive: Sequence[Sequence[float]]
    dead: Sequence[float]


WIDE = 3  # a span, as a ratio, from which on an axis is logarithmic


def colour(index: int) -> str:
    """The colour of the variant with this index, the same in every figure and table."""
    return PALETTE[index % len(PALETTE)]


def frontier(panels: Sequence[tuple[str, Sequence[Point]]], label: str) -> str:
    """L0 against a fidelity score, a panel a score, a point a run with its 95 % interval."""
    with figure_of(len(panels), 1, 4.7, 3.2) as (figure, axes):
        for ax, (title, points) in zip(axes, panels, strict=True):
            ax.set(title=title, xlabel="L0 (active latents per token)")
            for point in points:
                _mark(ax, point)
            if points:
                left, right = min(p.x for p in points), max(p.x for p in points)
                # runs at one L0 must not look far apart
                room = max(0.08 * (right - left), 0.06 * right, 1e-9)
                ax.set_xlim(left - room, right + room)
            else:
                _empty(ax)
        return svg_of(figure, label)


def _mark(ax: "Axes", point: Point) -> None:
    """A run in its variant's colour and shape, with its interval where it has one."""
    style: dict[str, Any] = {
        "color": colour(point.variant),
        "marker": MARKERS[point.variant % len(MARKERS)],
    }
    if point.low is not None and point.high is not None:
        ax.vlines(point.x, point.low, point.high, color=style["color"], linewidth=1.2, alpha=0.7)
    ax.plot(
        [point.x],
        [point.y],
        linestyle="none",
        markersize=6.5,
        markeredgecolor="white",
        alpha=0.95,
        **style,
    )


def trade(points: Sequence[Point], x: str, y: str, label: str) -> str:
    """One score against another, a point a run; the second on a log scale where it spans much. `x`,
    `y`: names of the axes.
    """
    with figure_of(1, 1, 9.4, 3.4) as (figure, (ax,)):
        ax.set(xlabel=x, ylabel=y)
        low, high = min(point.y for point in points), max(point.y for point in points)
        if high > WIDE * low:
            log_axis(ax, "y", (low, high))
        for point in points:
            _mark(ax, point)
        return svg_of(figure, label)


def curves(panels: Sequence[tuple[str, Sequence[Line]]], label: str) -> str:
    """Training curves over tokens, a panel a quantity; a title ending in `(log)` gets a logarithmic
    axis.
    """
    with figure_of(2, math.ceil(len(panels) / 2), 4.7, 2.35) as (figure, axes):
        for ax, (title, lines) in zip(axes, panels, strict=False):
            ax.set(title=title, xlabel="tokens")
            for line in lines:
                x, y = thin(line.x, line.y)
                known = [math.nan if value is None else value for value in y]
                ax.plot(
                    x,
                    known,
                    color=colour(line.variant),
                    linestyle=DASHES[line.seed % len(DASHES)],
                    linewidth=1.4,
                    alpha=0.9,
                )
            drawn = [value for line in lines for value in line.y if value is not None]
            if not drawn:
                _empty(ax)
            elif title.endswith("(log)") and min(drawn) > 0:
                log_axis(ax, "y", (min(drawn), max(drawn)))
            ax.xaxis.set_major_formatter(lambda value, _: _tokens(value))
        return svg_of(figure, label)


def densities(panels: Sequence[Panel], label: str) -> str:
    """Histogram of log10 firing share, a panel a variant, a line a seed; dead latents are the bar
    on the left.
    """
    values = [value for panel in panels for run in panel.alive for value in run]
    low = math.floor(min(values, default=-5.0) * 2) / 2
    edges = [low + 0.2 * i for i in range(math.ceil(-low / 0.2) + 1)]
    dead_at = low - 0.6
    with figure_of(min(3, len(panels)), math.ceil(len(panels) / 3), 3.2, 2.35) as (figure, axes):
        for ax, panel in zip(axes, panels, strict=False):
            ax.set(
                title=panel.title,
                xlabel="log10 of the share of tokens it fires on",
                ylabel="share of latents",
            )
            for seed, (run, dead) in enumerate(zip(panel.alive, panel.dead, strict=True)):
                total = max(len(run) / max(1.0 - dead, 1e-9), 1.0)
                style: dict[str, Any] = {
                    "color": colour(panel.variant),
                    "linestyle": DASHES[seed % len(DASHES)],
                    "linewidth": 1.4,
                }
                counts = histogram(run, edges)
                ax.stairs([count / total for count in counts], edges, **style)
                width = 0.5 / len(panel.alive)
                ax.bar(
                    dead_at - 0.25 + (seed + 0.5) * width,
                    dead,
                    width=width * 0.9,
                    color="#8a8f94",
                    edgecolor="white",
                )
            ticks = list(range(math.ceil(low), 1))
            ax.set_xticks(
                [dead_at, *ticks],
                ["dead", *(f"\N{MINUS SIGN}{-tick}" if tick else "0" for tick in ticks)],
            )
            ax.set_xlim(dead_at - 0.45, 0.1)
            ax.grid(visible=False, axis="x")
            if not panel.alive:
                _empty(ax)
        return svg_of(figure, label)


def bars(edges: Sequence[float], counts: Sequence[float]) -> str:
    """A latent's histogram of activation values as a small SVG drawn by hand (hundreds of them
    stand on a page).
    """
    tallest = max(counts, default=0) or 1
    width = 220 / max(len(counts), 1)
    tall = [44 * math.log1p(count) / math.log1p(tallest) for count in counts]
    rects = "".join(
        f'<rect x="{i * width:.1f}" y="{46 - h:.1f}" width="{max(width - 1, 0.5):.1f}" height="{h:.1f}"/>'
        for i, h in enumerate(tall)
        if h
    )
    texts = ""
    if edges:
        texts = f'<text x="0" y="58">{edges[0]:.3g}</text><text x="220" y="58" text-anchor="end">{edges[-1]:.3g}</text>'
    return (
        '<svg class="bars" viewBox="0 0 220 60" role="img" aria-label="histogram of activation values, log counts">'
        f'<line x1="0" y1="46.5" x2="220" y2="46.5"/>{rects}{texts}</svg>'
    )


def thin(x: Sequence[float], y: Sequence[float | None]) -> tuple[list[float], list[float | None]]:
    """At most `POINTS` + 1 points of a curve, evenly taken, the last one always among them."""
    step = max(1, math.ceil(len(x) / POINTS))
    keep = sorted({*range(0, len(x), step), len(x) - 1} - {-1})
    return [x[i] for i in keep], [y[i] for i in keep]


def histogram(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Counts of `values` in equal bins; what lies outside goes to the nearest bin."""
    counts = [0] * (len(edges) - 1)
    width = edges[1] - edges[0]
    for value in values:
        counts[min(max(int((value - edges[0]) / width), 0), len(counts) - 1)] += 1
    return counts


@contextmanager
def figure_of(
    columns: int, rows: int, width: float, height: float
) -> "Iterator[tuple[Figure, list[Axes]]]":
    """A grid of axes in the page's style, `width` x `height` inches each."""
    from matplotlib import rc_context  # lazily: 0.5 s that only a report pays
    from matplotlib.figure import Figure

    columns, rows = max(columns, 1), max(rows, 1)
    with rc_context(_STYLE):
        figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
        axes = [figure.add_subplot(rows, columns, i + 1) for i in range(columns * rows)]
        yield figure, axes


def svg_of(figure: "Figure", label: str) -> str:
    """The figure's <svg> element alone: no document header, metadata, dates, namespaces or ids that
    could clash.
    """
    for ax in figure.axes:
        if not ax.has_data() and not ax.texts:
            ax.set_axis_off()
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text, count=0)
    text = re.sub(
        r'<svg[^>]*viewBox="([^"]*)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{label}">',
        text,
        count=1,
    )
    # hundredths of a point will do
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)
    prefix = re.sub(r"\W+", "-", label.lower())
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = (
        text.replace('href="#', f'href="#{prefix}-')
        .replace("url(#", f"url(#{prefix}-")
        .replace("xlink:href", "href")
    )
    return re.sub(r"\n\s*", "\n", text)


def log_axis(ax: "Axes", which: str, span: tuple[float, float]) -> None:
    """Makes the x or y axis logarithmic: ticks as plain numbers, at more multiples of ten's powers
    the narrower the span.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = span
    subs = range(1, 10) if high < 8 * low else (1.0, 2.0, 5.0) if high < 1000 * low else (1.0,)
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _empty(ax: "Axes") -> None:
    ax.text(
        0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", va="center", color="#8a5a00"
    )
    ax.set(xticks=[], yticks=[])


def _tokens(value: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
