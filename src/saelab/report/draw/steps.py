"""Histograms, a panel a row: of one name a line a seed; of several names the first seed's."""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from saelab.figures import Steps
from saelab.report.draw.panel import Panel, signed
from saelab.report.draw.style import (
    DASHES,
    INK,
    PAPER,
    SOFT,
    colour,
    panels_of,
    picture_of,
    tip,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def histograms(panels: Sequence[Panel[Steps]], groups: Sequence[str], label: str) -> str:
    """A panel a row; what has no place on the axis is a grey bar a seed on its left, and its share
    stands in the title.
    """
    del groups
    single = len(panels[0].first.counts) == 1
    left = _left([figure for panel in panels for figure in panel.figures])
    with panels_of(len(panels), 2.4) as axes:
        for ax, panel in zip(axes, panels, strict=True):
            if single:
                _seeds(ax, panel, left)
            else:
                _names(ax, panel.first, colour(panel.row))
                titled(ax, panel.title)
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
        return picture_of(axes, label)


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
    titled(ax, f"{panel.label} ({'; '.join(texts)})" if texts else panel.label)
    for seed, figure in enumerate(panel.figures):
        style = {"linestyle": DASHES[seed % len(DASHES)], "linewidth": 1.4}
        for name, bins in figure.counts.items():
            drawn = ax.stairs(bins, figure.edges, color=colour(panel.row), **style)
            tip(drawn, f"{panel.label}, {name}, line {seed + 1} of {len(panel.figures)}")
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
            (bar,) = ax.bar(x, share, width=width * 0.9, color=SOFT, edgecolor=PAPER)
            tip(bar, f"{name}: {100 * share:.1f} %")
    whole = range(ceil(left), int(right) + 1)
    names = [f"{tick}".replace("-", "\N{MINUS SIGN}") for tick in whole]
    ax.set_xticks([*ticks, *whole], [*ticks.values(), *names])
    ax.set_xlim(min(ticks) - 0.8 * step, right + 0.1)
    ax.grid(visible=False, axis="x")


def _names(ax: "Axes", figure: Steps, shade: str) -> None:
    """The first histogram filled, the second as a line, others dotted; marks as upright lines, the
    last one dashed.
    """
    for place, (name, bins) in enumerate(figure.counts.items()):
        ink, dashes = (shade, "-") if place < 2 else (INK, (0, (1, 1)))
        how = {"linewidth": 1.5, "linestyle": dashes} if place else {"fill": True, "alpha": 0.3}
        tip(ax.stairs(bins, figure.edges, color=ink, **how), name)
    last = list(figure.marks)[-1:]
    for name, value in figure.marks.items():
        if value is not None:
            width, dashes = (1, (0, (3, 2))) if name in last else (1.2, "-")
            line = ax.axvline(value, color=INK, linewidth=width, linestyle=dashes)
            tip(line, f"{name}: {signed(value)}")
