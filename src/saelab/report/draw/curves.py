"""Lines over one axis: a panel a name, a line a row with the range over its seeds."""

from collections.abc import Sequence

from saelab.figures import Curves
from saelab.report.draw.panel import Panel, set_axis, span_of
from saelab.report.draw.style import colour, figure_of, svg_of

Line = tuple[Sequence[float], Sequence[float | None]]


def curves(panels: Sequence[Panel[Curves]], groups: Sequence[str], label: str) -> str:
    """The mean over seeds as a line, their range as its shade."""
    del groups
    first = panels[0].first
    names = list(dict.fromkeys(name for panel in panels for name in panel.first.lines))
    drawn = [line for panel in panels for figure in panel.figures for line in figure.lines.values()]
    x = span_of(first.x, [value for line in drawn for value in line[0]])
    y = span_of(first.y, [value for line in drawn for value in line[1]])
    with figure_of(len(names), min(len(names), 2), 4.8, 3.2) as (figure, axes):
        for ax, name in zip(axes, names, strict=False):
            ax.set(title=name, xlabel=first.x.label, ylabel=first.y.label)
            for panel in panels:
                lines = [seed.lines[name] for seed in panel.figures if name in seed.lines]
                at, mean, low, high = over_seeds(lines)
                shade = colour(panel.row)
                if low != high:
                    ax.fill_between(at, low, high, color=shade, alpha=0.25, linewidth=0)
                ax.plot(at, mean, color=shade, linewidth=1.6)
            set_axis(ax, "x", first.x, (x[0], max(x[1], 2 * x[0])), 0.0)
            set_axis(ax, "y", first.y, y, 0.05)
        return svg_of(figure, label)


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
