"""What is drawn of one row of the comparison, and what panels share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from saelab.figures import Axis
from saelab.report.draw.style import GROUPS, log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = TypeVar("Kind", covariant=True)


@dataclass(frozen=True)
class Panel(Generic[Kind]):
    """The figures of one key of a row's seeds, the seed that stands for it first."""

    row: int  # place of the row, for its colour
    label: str  # of the row
    title: str  # of the first seed
    figures: Sequence[Kind]

    @property
    def first(self) -> Kind:
        """The figure of the seed that stands for the row."""
        return self.figures[0]


def group_colour(index: int) -> str:
    """The colour of the group with this index, the same in every picture of a section."""
    return GROUPS[index % len(GROUPS)]


def span_of(axis: Axis, values: Iterable[float | None]) -> tuple[float, float]:
    """From where to where values reach; on a logarithmic axis those above 0 alone."""
    shown = [v for v in values if v is not None and (v > 0 or not axis.log)] or [1.0]
    return min(shown), max(shown)


def set_axis(ax: "Axes", which: str, axis: Axis, span: tuple[float, float], room: float) -> None:
    """Scale and limits of the x or y axis; `room`: on either side, as a factor or a share."""
    low, high = span
    margin = room * (high - low or 1)
    start, end = low - margin, high + margin
    if axis.log:
        start, end = low / (1 + room), high * (1 + room)
    start = start if axis.low is None else axis.low
    end = end if axis.high is None else axis.high
    (ax.set_xlim if which == "x" else ax.set_ylim)(start, end)
    if axis.log:
        log_axis(ax, which, span)


def signed(value: float) -> str:
    """Two decimals with a true minus sign."""
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
