"""Pictures of runs: sparsity and fidelity, one score against another, training curves, and the
small histograms of latents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saelab.report.draw.style import (
    DASHES,
    MARKERS,
    PAPER,
    colour,
    empty,
    log_axis,
    panels_of,
    picture_of,
    tip,
    titled,
    written,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 160  # of a training curve; more cannot be told apart at this width
NEAR = 0.06  # room beside the points, as a share of L0
LEAST = 0.05  # span of a linear axis, at least, and as a share of its values
WIDE = 3  # a span, as a ratio, from which on an axis is logarithmic


@dataclass(frozen=True)
class Point:
    """One run; `variant` is an index into the page's colours."""

    label: str
    variant: int
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """One run's curve; `variant` and `seed` are indices into the page's colours and line styles.
    Undefined values are None and leave a gap.
    """

    label: str
    variant: int
    seed: int
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Trade:
    """One score against another, a point a run; `x` and `y` are their names."""

    x: str
    y: str
    points: Sequence[Point]
    over_l0: bool = True


def trades(panels: Sequence[Trade], label: str) -> str:
    """A panel a pair of scores, a point a run with its 95 % interval."""
    with panels_of(len(panels), 2.6) as axes:
        for ax, panel in zip(axes, panels, strict=True):
            titled(ax, panel.y)
            ax.set(xlabel=panel.x)
            for point in panel.points:
                _mark(ax, panel, point)
            if panel.points:
                _limits(ax, panel)
            else:
                empty(ax)
        return picture_of(axes, label)


def _limits(ax: "Axes", panel: Trade) -> None:
    x, y = ([getattr(point, name) for point in panel.points] for name in "xy")
    # runs at one L0 must not look far apart
    room = max(0.08 * (max(x) - min(x)), NEAR * max(x) if panel.over_l0 else 0, 1e-9)
    ax.set_xlim(min(x) - room, max(x) + room)
    if not panel.over_l0 and max(y) > WIDE * min(y):
        log_axis(ax, "y", (min(y), max(y)))


def _mark(ax: "Axes", panel: Trade, point: Point) -> None:
    """A run in its variant's colour and shape, with its interval where it has one."""
    shade, marker = colour(point.variant), MARKERS[point.variant % len(MARKERS)]
    says = f"{point.label}: {panel.x} {written(point.x)}, {panel.y} {written(point.y)}"
    if point.low is not None and point.high is not None:
        says += f" [{written(point.low)}, {written(point.high)}]"
        bar = ax.vlines(point.x, point.low, point.high, color=shade, linewidth=1.2, alpha=0.7)
        tip(bar, says)
    (dot,) = ax.plot([point.x], [point.y], color=shade, marker=marker, linestyle="none")
    dot.set(markersize=6, markeredgecolor=PAPER, alpha=0.95)
    tip(dot, says)


def curves(panels: Sequence[tuple[str, Sequence[Line]]], label: str) -> str:
    """Training curves over tokens, a panel a quantity; a title ending in `(log)` gets a logarithmic
    axis.
    """
    with panels_of(len(panels), 2.2) as axes:
        for ax, (title, lines) in zip(axes, panels, strict=True):
            titled(ax, title)
            ax.set(xlabel="tokens")
            for line in lines:
                x, y = thin(line.x, line.y)
                gaps = [math.nan if value is None else value for value in y]
                dashes = DASHES[line.seed % len(DASHES)]
                (drawn,) = ax.plot(x, gaps, color=colour(line.variant), linestyle=dashes)
                drawn.set(linewidth=1.4, alpha=0.9)
                last = [(a, b) for a, b in zip(x, y, strict=True) if b is not None][-1:]
                tip(drawn, *(f"{line.label}: {written(b)} at {_tokens(a)} tokens" for a, b in last))
            values = [value for line in lines for value in line.y if value is not None]
            if not values:
                empty(ax)
            elif title.endswith("(log)") and min(values) > 0:
                log_axis(ax, "y", (min(values), max(values)))
            elif not any(values):  # a share of 0 all along
                ax.set_ylim(-0.02, 1)
            else:
                ax.set_ylim(*wide(min(values), max(values)))
            ax.xaxis.set_major_formatter(lambda value, _: _tokens(value))
        return picture_of(axes, label)


def wide(low: float, high: float) -> tuple[float, float]:
    """A linear axis on which a small change does not look large; from about 0 on where no value is
    negative and the change reaches that far.
    """
    room = max(high - low, LEAST * abs(high), LEAST)
    middle = (low + high) / 2
    bottom = middle - 0.55 * room
    return max(bottom, -0.05 * room) if low >= 0 else bottom, middle + 0.55 * room


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
