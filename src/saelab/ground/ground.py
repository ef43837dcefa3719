"""Grounds: where activations come from, whatever that is. `GROUNDS` is the table; a new kind of
source is a file and one line in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from saelab.ground.held_out import HeldOut
from saelab.ground.stream import ActivationStream
from saelab.ground.world import WorldGround
from saelab.runs import Source, WorldSource
from saelab.synth.worlds import build_world
from saelab.types import ActivationSource


class Ground(Protocol):
    """A source that is open: batches to train on, held-out data to evaluate on, and its facts."""

    @property
    def source(self) -> Source | WorldSource:
        """What was asked for."""
        ...

    @property
    def name(self) -> str:
        """How messages call it."""
        ...

    @property
    def d_in(self) -> int:
        """Width D of the activations."""
        ...

    @property
    def weights_hash(self) -> str | None:
        """Which weights its model has; None where the source alone decides everything."""
        ...

    @property
    def stream(self) -> ActivationSource:
        """The batches to train on, opened when they are first asked for."""
        ...

    @property
    def live(self) -> ActivationStream | None:
        """The stream that a cache on disk would hold; None where a cache would save nothing."""
        ...

    def on_disk(self, folder: Path) -> "Ground":
        """The same with its batches read from a finished cache in `folder`."""
        ...

    @property
    def about(self) -> dict[str, Any]:
        """What it is, in the words of `summary.json`; opens no stream."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What is recorded beside every SAE that is trained on it."""
        ...

    @property
    def remarks(self) -> list[str]:
        """What a user should know about the data before training starts, one sentence each."""
        ...

    def held_out(self) -> HeldOut:
        """Data that no training sees, for evaluations; read anew in every call."""
        ...


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
