"""Matrices of numbers as shades, a panel a row; with few cells their numbers are printed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from saelab.figures import Heat
from saelab.report.draw.panel import Panel, group_colour, signed
from saelab.report.draw.style import (
    FAINT,
    INK,
    PAPER,
    SHADED,
    panels_of,
    picture_of,
    shades,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTER = 0.0225  # width of a letter of a group's name, as a share of a panel's
DARK = 0.62  # share of the largest value from which the number in a cell is white


def heats(panels: Sequence[Panel[Heat]], groups: Sequence[str], label: str) -> str:
    """A heat map a row; groups of columns as a strip of colour above."""
    with panels_of(len(panels), 2.6) as axes:
        for ax, panel in zip(axes, panels, strict=True):
            heat = panel.first
            n, m = len(heat.values), len(heat.values[0]) if heat.values else 0
            if not m:
                continue
            ax.imshow(
                [[0.0 if v is None else v for v in row] for row in heat.values],
                cmap=shades(diverging=heat.low < 0),
                vmin=heat.low,
                vmax=heat.high,
                aspect="auto",
                interpolation="none",
                gid=SHADED,
            )
            titled(ax, panel.title, pad=21 if heat.groups else 8)
            ax.set(xlabel=heat.column_label, ylabel=heat.row_label, xticks=[], yticks=[])
            ax.tick_params(length=0)
            ax.grid(visible=False)
            if heat.printed:
                _numbers(ax, heat)
            if heat.printed and heat.columns:
                ax.set_xticks(range(m), heat.columns)
            if heat.printed and heat.rows:
                ax.set_yticks(range(n), heat.rows)
            _strip(ax, heat.groups, groups, m)
        return picture_of(axes, label)


def _numbers(ax: "Axes", heat: Heat) -> None:
    """A number a cell; the diagonal of a matrix over one set of names is crossed out."""
    n, square = len(heat.values), list(heat.rows) == list(heat.columns)
    largest = max(abs(heat.low), abs(heat.high))
    for i, row in enumerate(heat.values):
        for j, value in enumerate(row):
            if not (square and i == j):
                text = "n/a" if value is None else signed(value)
                ink = PAPER if abs(value or 0) > DARK * largest else INK
                ax.text(j, i, text, ha="center", va="center", color=ink)
    if square:
        ax.plot([-0.5, n - 0.5], [-0.5, n - 0.5], color=FAINT, linewidth=0.8)
        ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))


def _strip(
    ax: "Axes", bounds: Mapping[str, tuple[int, int]], groups: Sequence[str], width: int
) -> None:
    """Colours above the columns and lines between the groups; names where they fit side by side,
    the legend has them all.
    """
    from matplotlib.patches import Rectangle

    written = -0.1  # right end of the last name
    for name, (start, stop) in sorted(bounds.items(), key=lambda item: item[1]):
        left, share = start / width, (stop - start) / width
        shade = group_colour(groups.index(name))
        strip = Rectangle((left, 1.012), share, 0.03, color=shade, linewidth=0)
        strip.set(transform=ax.transAxes, clip_on=False)
        ax.add_patch(strip)
        if start:
            ax.axvline(start - 0.5, color=INK, linewidth=0.7)
        middle, half = left + share / 2, LETTER * len(name) / 2
        if middle - half > written + LETTER and middle + half < 1.06:
            ax.text(
                middle, 1.05, name, ha="center", va="bottom", fontsize=8, transform=ax.transAxes
            )
            written = middle + half
