"""Points over two axes, a panel a row, on shared axes."""

from collections.abc import Sequence
from math import nan
from typing import TYPE_CHECKING, Any

from saelab.figures import Points, Scatter
from saelab.report.draw.panel import Panel, group_colour, set_axis, span_of
from saelab.report.draw.style import (
    FAINT,
    INK,
    PAPER,
    SOFT,
    colour,
    panels_of,
    picture_of,
    tip,
    titled,
    written,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOT: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 5.2,
    "markeredgecolor": PAPER,
    "markeredgewidth": 0.6,
}
RING: dict[str, Any] = {
    **DOT,
    "markersize": 4,
    "markerfacecolor": "none",
    "markeredgecolor": SOFT,
    "markeredgewidth": 0.8,
}
GROUPED: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 3.4,
    "markeredgewidth": 0,
    "alpha": 0.6,
}


def scatters(panels: Sequence[Panel[Scatter]], groups: Sequence[str], label: str) -> str:
    """A panel a row. On a logarithmic axis what is not above 0 stands on the lower edge."""
    first = panels[0].first
    shown = [figure for panel in panels for figure in _shown(panel)]
    points = [points for figure in shown for points in figure.points]
    x = span_of(first.x, [value for some in points for value in some.x])
    y = span_of(first.y, [value for some in points for value in some.y])
    edge = y[0] / 2 if first.y.log else y[0]
    with panels_of(len(panels), 2.6) as axes:
        for ax, panel in zip(axes, panels, strict=True):
            drawn = panel.first
            below = f"{drawn.x.label}\n{drawn.counts}" if drawn.counts else drawn.x.label
            titled(ax, panel.label if drawn.groups else panel.title)
            ax.set(xlabel=below, ylabel=drawn.y.label)
            for seed in _shown(panel):
                _draw(ax, seed, colour(panel.row), groups, edge)
            set_axis(ax, "x", first.x, x, 0.4 if first.x.log else 0.06)
            set_axis(ax, "y", first.y, (edge, y[1]), 0.4 if first.y.log else 0.05)
        return picture_of(axes, label)


def _shown(panel: Panel[Scatter]) -> Sequence[Scatter]:
    return panel.figures if panel.first.groups else panel.figures[:1]


def _draw(ax: "Axes", scatter: Scatter, shade: str, groups: Sequence[str], edge: float) -> None:
    if scatter.band is not None:
        band = scatter.band
        low, high = ([max(v, edge) for v in bound] for bound in (band.low, band.high))
        ax.fill_between(band.x, low, high, color=FAINT, alpha=0.55, linewidth=0)
    before: list[float] = []
    for points in scatter.points:
        y = [nan if v is None else max(v, edge) for v in points.y]
        if points.group:
            for index, name in enumerate(scatter.groups):
                places = [i for i, group in enumerate(points.group) if group == index]
                look = {**GROUPED, "color": group_colour(groups.index(name))}
                _marks(ax, scatter, name, [(points.x[i], points.y[i], y[i]) for i in places], look)
        elif points.mark == "faint":
            _faint(ax, points, y, shade)
        else:
            if points.mark == "ring" and len(before) == len(y):
                _join(ax, points.x, before, y, shade)
            look = {
                "ring": RING,
                "cross": {**DOT, "marker": "X", "color": INK, "zorder": 3},
                "dot": {**DOT, "color": shade, "zorder": 3},
            }[points.mark]
            _marks(ax, scatter, points.label, [*zip(points.x, points.y, y, strict=True)], look)
        before = y


def _marks(
    ax: "Axes",
    scatter: Scatter,
    name: str,
    places: Sequence[tuple[float, float | None, float]],  # x, y, and where it is drawn
    look: dict[str, Any],
) -> None:
    """Points of one look, each with its values as a tooltip."""
    known = [(x, y, at) for x, y, at in places if y is not None]
    (drawn,) = ax.plot([x for x, _, _ in known], [at for _, _, at in known], **look)
    values = f"{scatter.x.label} {{}}, {scatter.y.label} {{}}"
    tip(drawn, *(f"{name}: {values.format(written(x), written(y))}" for x, y, _ in known))


def _join(
    ax: "Axes", x: Sequence[float], a: Sequence[float], b: Sequence[float], shade: str
) -> None:
    """One line with a gap after every pair."""
    across = [value for place in x for value in (place, place, nan)]
    up = [value for pair in zip(a, b, strict=True) for value in (*pair, nan)]
    ax.plot(across, up, color=shade, linewidth=0.6, alpha=0.6)


def _faint(ax: "Axes", points: Points, y: Sequence[float], shade: str) -> None:
    """Many small dots as one path: strokes of no length with round ends; markers would take five
    times the space.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if not y:
        return
    corners = [(a, b) for a, b in zip(points.x, y, strict=True) for _ in range(2)]
    path = Path(corners, [Path.MOVETO, Path.LINETO] * len(y))
    path.should_simplify = False
    drawn = PathPatch(path, fill=False, edgecolor=shade, linewidth=2.4, alpha=0.3)
    drawn.set(capstyle="round")
    tip(ax.add_patch(drawn), points.label)
