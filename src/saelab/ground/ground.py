"""Grounds: where activations come from, whatever that is. `GROUNDS` is the table; a new kind of
source is a file and one line in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from saelab.ground.world import WorldGround
from saelab.runs import Source, WorldSource
from saelab.synth.worlds import build_world

if TYPE_CHECKING:
    from saelab.ground.model import ModelGround

# A source that is open. All kinds have the members that `model.ModelGround` explains.
Ground: TypeAlias = "ModelGround | WorldGround"


@dataclass(frozen=True)
class Kind:
    """One kind of ground, as the executor needs to know it before it is open."""

    # refuses what cannot work, without loading a model; raises `ValueError` or `FileNotFoundError`
    check: Callable[[Any], object]
    open: Callable[[Any], Ground]
    width: Callable[[Any], int]  # of its activations, without loading a model
    # of torch, where results are reported for that number; None: as many as the user wants
    threads: int | None = None
    short: bool = False  # its streams are many and short: progress is shown of all of them together


def _check_model(source: Source) -> None:
    from saelab.ground.preflight import check_source  # transformers: seconds that no world pays

    check_source(source)


def _width_of_model(source: Source) -> int:
    from saelab.ground.preflight import width_of

    return width_of(source)


def _open_model(source: Source) -> Ground:
    from saelab.ground.model import ModelGround

    return ModelGround(source)


GROUNDS: dict[type, Kind] = {
    Source: Kind(_check_model, _open_model, _width_of_model),
    # products this small gain nothing from more threads, and results depend on the number
    WorldSource: Kind(
        build_world, WorldGround, lambda s: build_world(s).d_in, threads=1, short=True
    ),
}


def kind_of(source: Source | WorldSource) -> Kind:
    """The row of the table of grounds that a source belongs to."""
    return GROUNDS[type(source)]


def open_ground(source: Source | WorldSource) -> Ground:
    """Load the model, or build the world, that `source` names. Raises as `check` does."""
    return kind_of(source).open(source)
