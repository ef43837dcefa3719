"""Figures as SVG text: the five kinds that evaluations make, and pictures of runs."""

from collections.abc import Callable, Sequence
from typing import Any

from saelab.figures import Curves, Figure, Heat, Scatter, Steps, Tree
from saelab.report.draw.curves import curves
from saelab.report.draw.heat import heats
from saelab.report.draw.panel import Panel, group_colour
from saelab.report.draw.scatter import scatters
from saelab.report.draw.steps import histograms
from saelab.report.draw.tree import trees

__all__ = ["Panel", "draw", "group_colour"]

DRAWN: dict[type[Figure], Callable[[Sequence[Panel[Any]], Sequence[str], str], str]] = {
    Scatter: scatters,
    Steps: histograms,
    Curves: curves,
    Heat: heats,
    Tree: trees,
}


def draw(panels: Sequence[Panel[Figure]], groups: Sequence[str], label: str) -> str:
    """The figures of one key and kind as one picture, a panel a row.

    `groups`: every group's name, in the order of the colours; `label`: what the picture is.
    """
    return DRAWN[type(panels[0].first)](panels, groups, label)
