"""Pictures of runs: sparsity and fidelity, one score against another, training curves, and the
small histograms of latents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saelab.report.draw.style import DASHES, MARKERS, colour, empty, figure_of, log_axis, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 160  # of a training curve; more cannot be told apart at this width
WIDE = 3  # a span, as a ratio, from which on an axis is logarithmic


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


def frontier(panels: Sequence[tuple[str, Sequence[Point]]], label: str) -> str:
    """L0 against a fidelity score, a panel a score, a point a run with its 95 % interval."""
    with figure_of(len(panels), len(panels), 4.7, 3.2) as (figure, axes):
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
                empty(ax)
        return svg_of(figure, label)


def _mark(ax: "Axes", point: Point) -> None:
    """A run in its variant's colour and shape, with its interval where it has one."""
    shade, marker = colour(point.variant), MARKERS[point.variant % len(MARKERS)]
    if point.low is not None and point.high is not None:
        ax.vlines(point.x, point.low, point.high, color=shade, linewidth=1.2, alpha=0.7)
    (dot,) = ax.plot([point.x], [point.y], color=shade, marker=marker, linestyle="none")
    dot.set(markersize=6.5, markeredgecolor="white", alpha=0.95)


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
    with figure_of(len(panels), 2, 4.7, 2.35) as (figure, axes):
        for ax, (title, lines) in zip(axes, panels, strict=False):
            ax.set(title=title, xlabel="tokens")
            for line in lines:
                x, y = thin(line.x, line.y)
                gaps = [math.nan if value is None else value for value in y]
                dashes = DASHES[line.seed % len(DASHES)]
                (drawn,) = ax.plot(x, gaps, color=colour(line.variant), linestyle=dashes)
                drawn.set(linewidth=1.4, alpha=0.9)
            values = [value for line in lines for value in line.y if value is not None]
            if not values:
                empty(ax)
            elif title.endswith("(log)") and min(values) > 0:
                log_axis(ax, "y", (min(values), max(values)))
            ax.xaxis.set_major_formatter(lambda value, _: _tokens(value))
        return svg_of(figure, label)


def bars(edges: Sequence[float], counts: Sequence[float]) -> str:
    """A latent's histogram of activation values as a small SVG drawn by hand (hundreds of them
    stand on a page).
    """
    tallest = max(counts, default=0) or 1
    width = 220 / max(len(counts), 1)
    tall = [44 * math.log1p(count) / math.log1p(tallest) for count in counts]
    bar = f'width="{max(width - 1, 0.5):.1f}"'
    rects = "".join(
        f'<rect x="{i * width:.1f}" y="{46 - h:.1f}" {bar} height="{h:.1f}"/>'
        for i, h in enumerate(tall)
        if h
    )
    texts = ""
    if edges:
        texts = f'<text x="0" y="58">{edges[0]:.3g}</text>'
        texts += f'<text x="220" y="58" text-anchor="end">{edges[-1]:.3g}</text>'
    return (
        '<svg class="bars" viewBox="0 0 220 60" role="img" '
        'aria-label="histogram of activation values, log counts">'
        f'<line x1="0" y1="46.5" x2="220" y2="46.5"/>{rects}{texts}</svg>'
    )


def thin(x: Sequence[float], y: Sequence[float | None]) -> tuple[list[float], list[float | None]]:
    """At most `POINTS` + 1 points of a curve, evenly taken, the last one always among them."""
    step = max(1, math.ceil(len(x) / POINTS))
    keep = sorted({*range(0, len(x), step), len(x) - 1} - {-1})
    return [x[i] for i in keep], [y[i] for i in keep]


def _tokens(value: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
