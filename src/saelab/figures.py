"""The values of a picture, without any drawing: evaluations make them, `report` draws them.

A figure belongs to one dictionary. The page draws figures of one `key` together: a panel a row, of
its first healthy seed; histograms of a single name and scatters with groups show all seeds of a
row; `Curves` are in one panel, a line a row, with the range over its seeds.
"""

from collections import abc
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from math import isfinite
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# how points are drawn; ring i is joined to point i of the points before it, which it is compared to
Mark = Literal["dot", "faint", "ring", "cross"]


def _same_length(what: str, *columns: Sequence[Any]) -> None:
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"{what} have {', '.join(str(len(column)) for column in columns)} values")


@dataclass(frozen=True)
class Axis:
    """What an axis shows."""

    label: str
    log: bool = False
    low: float | None = None  # None: as the data say
    high: float | None = None


@dataclass(frozen=True)
class Points:
    """Points of one meaning: `x` and `y` of one length."""

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    mark: Mark = "dot"
    group: Sequence[int] = ()  # number of each point's group, for its colour; empty: the row's

    def __post_init__(self) -> None:
        _same_length(
            f"points {self.label!r}", self.x, self.y, *([self.group] if self.group else [])
        )


@dataclass(frozen=True)
class Band:
    """A range of y at every x, such as 5 % and 95 % of a control."""

    label: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    def __post_init__(self) -> None:
        _same_length(f"band {self.label!r}", self.x, self.low, self.high)


@dataclass(frozen=True)
class Scatter:
    """Points over two axes, perhaps over a band."""

    key: str
    title: str
    note: str  # what a reader should look for, whole sentences
    x: Axis
    y: Axis
    points: tuple[Points, ...]
    band: Band | None = None
    groups: tuple[str, ...] = ()  # names of the groups
    grouped: str = "Features"  # what these are groups of
    counts: str = ""  # how many of how many are drawn


@dataclass(frozen=True)
class Steps:
    """Histograms over shared edges; `marks` are numbers shown as vertical lines, by name."""

    key: str
    title: str
    note: str
    x: Axis
    y: Axis
    edges: Sequence[float]  # [bins + 1]
    counts: Mapping[str, Sequence[float]]  # name -> [bins]
    marks: Mapping[str, float | None] = field(default_factory=dict)
    # shares that have no place on the axis, by name: a bar each on its left
    apart: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.edges) < 2:
            raise ValueError(f"histograms of {self.key!r} have no bin: give at least two edges")
        _same_length(f"histograms of {self.key!r}", self.edges[1:], *self.counts.values())


@dataclass(frozen=True)
class Curves:
    """Lines over one axis, by name: each name is a panel in which every row has a line."""

    key: str
    title: str
    note: str
    x: Axis
    y: Axis
    lines: Mapping[str, tuple[Sequence[float], Sequence[float | None]]]

    def __post_init__(self) -> None:
        for name, (x, y) in self.lines.items():
            _same_length(f"line {name!r}", x, y)


@dataclass(frozen=True)
class Heat:
    """A matrix of numbers from `low` to `high`; None is an empty cell."""

    key: str
    title: str
    note: str
    rows: Sequence[str]  # empty: the rows are not named
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]  # [rows][columns]
    low: float
    high: float
    # name of a stretch of columns -> its first and the one after its last
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    printed: bool = False  # whether a cell shows its number
    row_label: str = ""
    column_label: str = ""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(
                f"{self.key!r} goes from {self.low} to {self.high}; the first must be the lower"
            )
        _same_length(
            f"rows of {self.key!r}", *self.values, *([self.columns] if self.columns else [])
        )


@dataclass(frozen=True)
class Node:
    """A node of a tree: how strong it is in [0, 1], and its children."""

    label: str
    value: float | None
    children: tuple["Node", ...] = ()
    link: float | None = None  # of the edge from its parent, in [0, 1]; None: not found


@dataclass(frozen=True)
class Tree:
    """Parents and children with the edges between them."""

    key: str
    title: str
    note: str
    roots: tuple[Node, ...]
    counts: str = ""  # how many of how many edges are found


Figure = Scatter | Steps | Curves | Heat | Tree
KINDS: dict[str, type[Figure]] = {kind.__name__.lower(): kind for kind in get_args(Figure)}


def figure_to_json(figure: Figure) -> dict[str, Any]:
    """Plain values with the kind beside them."""
    return {"kind": type(figure).__name__.lower(), **asdict(figure)}


def figure_from_json(value: Any) -> Figure:
    """The figure that `figure_to_json` wrote. Raises `ValueError` for what is none."""
    if not isinstance(value, Mapping) or value.get("kind") not in KINDS:
        raise ValueError(f"a figure is one of {', '.join(KINDS)}; evaluate again")
    return from_plain(KINDS[value["kind"]], {k: v for k, v in value.items() if k != "kind"})


def from_plain(hint: Any, value: Any) -> Any:
    """A json value as the type that a hint names: dataclasses of numbers, text, lists and mappings.

    Raises `ValueError` for anything else, so that what was read can be drawn.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        hints = get_type_hints(hint)
        if not set(value) <= set(hints):
            raise ValueError(f"a {hint.__name__} has no {', '.join(set(value) - set(hints))}")
        try:
            return hint(**{key: from_plain(hints[key], item) for key, item in value.items()})
        except TypeError as error:
            raise ValueError(f"a {hint.__name__} is not whole: {error}") from error
    if origin in (Union, UnionType):
        for choice in inner:
            with suppress(ValueError):
                return from_plain(choice, value)
    elif origin is Literal and value in inner:
        return value
    elif origin is abc.Mapping and isinstance(value, Mapping):
        return {str(key): from_plain(inner[1], item) for key, item in value.items()}
    elif origin is tuple and isinstance(value, list) and Ellipsis not in inner:
        if len(value) == len(inner):
            return tuple(from_plain(*pair) for pair in zip(inner, value, strict=True))
    elif origin in (tuple, abc.Sequence) and isinstance(value, list):
        items = [from_plain(inner[0], item) for item in value]
        return tuple(items) if origin is tuple else items
    elif hint in (float, int) and isinstance(value, int | float) and not isinstance(value, bool):
        if isfinite(value) and (hint is float or isinstance(value, int)):
            return value
    elif hint in (str, bool, NoneType) and isinstance(value, hint):
        return value
    raise ValueError(f"{str(value)[:40]!r} is no {getattr(hint, '__name__', hint)}")
