"""The values of a picture, without any drawing: evaluations make them, `report` draws them.

A figure belongs to one dictionary. The page draws figures of one `key` together: a panel a row, of
its first healthy seed; `Curves` in one panel, a line a row, with the range over its seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# how points are drawn; ring i is joined to point i of the points before it, which it is compared to
Mark = Literal["dot", "faint", "ring", "cross"]


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


@dataclass(frozen=True)
class Band:
    """A range of y at every x, such as 5 % and 95 % of a control."""

    label: str
    x: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


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


@dataclass(frozen=True)
class Curves:
    """Lines over one axis, by name: each name is a panel in which every row has a line."""

    key: str
    title: str
    note: str
    x: Axis
    y: Axis
    lines: Mapping[str, tuple[Sequence[float], Sequence[float | None]]]


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


Figure = Scatter | Steps | Curves | Heat | Tree
KINDS: dict[str, type[Figure]] = {
    "scatter": Scatter,
    "steps": Steps,
    "curves": Curves,
    "heat": Heat,
    "tree": Tree,
}


def figure_to_json(figure: Figure) -> dict[str, Any]:
    """Plain values with the kind beside them."""
    kind = next(name for name, cls in KINDS.items() if type(figure) is cls)
    return {"kind": kind, **asdict(figure)}


def figure_from_json(value: Any) -> Figure:
    """The figure that `figure_to_json` wrote. Raises `ValueError` for what is none."""
    try:
        fields = dict(value)
        return _read_fields(KINDS[fields.pop("kind")], fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"this is no figure of saelab ({error!r}); evaluate again") from error


# fields that hold values of their own: how one is read, and whether there are several
_INNER: dict[str, type] = {"x": Axis, "y": Axis, "band": Band}
_SEVERAL: dict[str, type] = {"points": Points, "roots": Node, "children": Node}


def _read_fields(cls: type, fields: Mapping[str, Any]) -> Any:
    read: dict[str, Any] = dict(fields)
    for name, value in fields.items():
        if name in _SEVERAL:
            read[name] = tuple(_read_fields(_SEVERAL[name], item) for item in value)
        elif name in _INNER and isinstance(value, Mapping):
            read[name] = _read_fields(_INNER[name], value)
        elif name == "groups" and not isinstance(value, Mapping):
            read[name] = tuple(value)
    return cls(**read)
