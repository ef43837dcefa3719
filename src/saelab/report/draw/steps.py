"""Histograms, a panel a row: of one name a line a seed; of several names the first seed's."""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from saelab.figures import Steps
from saelab.report.draw.panel import Panel, signed
from saelab.report.draw.style import DASHES, INK, colour, figure_of, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = "#8a8f94"


def histograms(panels: Sequence[Panel[Steps]], groups: Sequence[str], label: str) -> str:
    """A panel a row; what has no place on the axis is a grey bar a seed on its left, and its share
    stands in the title.
    """
    del groups
    single = len(panels[0].first.counts) == 1
    columns, width, height = (3, 3.2, 2.35) if single else (2, 4.8, 2.6)
    left = _left([figure for panel in panels for figure in panel.figures])
    columns = min(columns, len(panels)) if single else columns
    with figure_of(len(panels), columns, width, height) as (figure, axes):
        for ax, panel in zip(axes, panels, strict=False):
            if single:
                _seeds(ax, panel, left)
            else:
                _names(ax, panel.first, colour(panel.row))
                ax.set_title(panel.title)
            axis, vertical = panel.first.x, panel.first.y
            marks = [
                f"{name}: {signed(value)}"
                for name, value in panel.first.marks.items()
                if value is not None
            ]
            ax.set_xlabel("\n".join([axis.label, *([", ".join(marks)] if marks else [])]))
            ax.set_ylabel(vertical.label)
            if axis.low is not None and axis.high is not None:
                ax.set_xlim(axis.low, axis.high)
        return svg_of(figure, label)


def _left(figures: Sequence[Steps]) -> float:
    """The edge from which on some histogram counts anything."""
    edges = figures[0].edges
    histograms = [bins for figure in figures for bins in figure.counts.values()]
    used = [i for bins in histograms for i, n in enumerate(bins[: len(edges)]) if n]
    return edges[min(used, default=0)]


def _seeds(ax: "Axes", panel: Panel[Steps], left: float) -> None:
    apart = {name: [f.apart.get(name, 0.0) for f in panel.figures] for name in panel.first.apart}
    texts = [
        f"{name} {', '.join(f'{100 * share:.1f} %' for share in shares)}"
        for name, shares in apart.items()
    ]
    ax.set_title(f"{panel.label} ({'; '.join(texts)})" if texts else panel.label)
    for seed, figure in enumerate(panel.figures):
        style = {"linestyle": DASHES[seed % len(DASHES)], "linewidth": 1.4}
        for bins in figure.counts.values():
            ax.stairs(bins, figure.edges, color=colour(panel.row), **style)
    right = panel.first.edges[-1]
    if not apart:
        return
    step = (right - left) / 10 or 1
    ticks = {}
    for place, (name, shares) in enumerate(apart.items()):
        at = left - (len(apart) - place) * 1.5 * step
        ticks[at] = name
        width = step / len(shares)
        for seed, share in enumerate(shares):
            x = at - step / 2 + (seed + 0.5) * width
            ax.bar(x, share, width=width * 0.9, color=APART, edgecolor="white")
    whole = range(ceil(left), int(right) + 1)
    names = [f"{tick}".replace("-", "\N{MINUS SIGN}") for tick in whole]
    ax.set_xticks([*ticks, *whole], [*ticks.values(), *names])
    ax.set_xlim(min(ticks) - 0.8 * step, right + 0.1)
    ax.grid(visible=False, axis="x")


def _names(ax: "Axes", figure: Steps, shade: str) -> None:
    """The first histogram filled, the second as a line, others dotted; marks as upright lines, the
    last one dashed.
    """
    for place, bins in enumerate(figure.counts.values()):
        if place == 0:
            ax.stairs(bins, figure.edges, fill=True, color=shade, alpha=0.3)
        else:
            ink, dashes = (shade, "-") if place == 1 else (INK, (0, (1, 1)))
            ax.stairs(bins, figure.edges, color=ink, linewidth=1.5, linestyle=dashes)
    last = list(figure.marks)[-1:]
    for name, value in figure.marks.items():
        if value is not None:
            width, dashes = (1, (0, (3, 2))) if name in last else (1.2, "-")
            ax.axvline(value, color=INK, linewidth=width, linestyle=dashes)
