"""Lines over one axis: a panel a name, a line a row with the range over its seeds."""

from collections.abc import Sequence

from saelab.figures import Curves
from saelab.report.draw.panel import Panel, set_axis, span_of
from saelab.report.draw.style import colour, panels_of, picture_of, tip, titled, written

Line = tuple[Sequence[float], Sequence[float | None]]


def curves(panels: Sequence[Panel[Curves]], groups: Sequence[str], label: str) -> str:
    """The mean over seeds as a line, their range as its shade."""
    del groups
    first = panels[0].first
    names = list(dict.fromkeys(name for panel in panels for name in panel.first.lines))
    lines = [line for panel in panels for figure in panel.figures for line in figure.lines.values()]
    x = span_of(first.x, [value for line in lines for value in line[0]])
    y = span_of(first.y, [value for line in lines for value in line[1]])
    with panels_of(len(names), 2.4) as axes:
        for ax, name in zip(axes, names, strict=True):
            titled(ax, name)
            ax.set(xlabel=first.x.label, ylabel=first.y.label)
            for panel in panels:
                seeds = [seed.lines[name] for seed in panel.figures if name in seed.lines]
                at, mean, low, high = over_seeds(seeds)
                shade = colour(panel.row)
                if low != high:
                    ax.fill_between(at, low, high, color=shade, alpha=0.25, linewidth=0)
                (drawn,) = ax.plot(at, mean, color=shade, linewidth=1.6)
                if at:
                    tip(drawn, f"{panel.label}: {written(mean[-1])} at {written(at[-1])}")
            set_axis(ax, "x", first.x, (x[0], max(x[1], 2 * x[0])), 0.0)
            set_axis(ax, "y", first.y, y, 0.05)
        return picture_of(axes, label)


def over_seeds(
    lines: Sequence[Line],
) -> tuple[list[float], list[float], list[float], list[float]]:
    """x, mean, lowest and highest of several lines, at the x of all of them.

    Between its points a line is straight; beyond its last one it keeps the last value.
    """
    import numpy as np

    defined = [[(a, b) for a, b in zip(x, y, strict=True) if b is not None] for x, y in lines]
    at = sorted({a for line in defined for a, _ in line})
    if not at:
        return [], [], [], []
    columns = [zip(*line, strict=True) for line in defined if line]
    values = np.array([np.interp(at, list(x), list(y)) for x, y in columns])
    return at, values.mean(0).tolist(), values.min(0).tolist(), values.max(0).tolist()
