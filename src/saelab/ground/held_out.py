"""Held-out data of one ground: read once, shared by all evaluations and all dictionaries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saelab.runs import Source, WorldSource
from saelab.types import LanguageModel, Windows

if TYPE_CHECKING:
    from saelab.synth.world import World
    from saelab.text.windows import TokenWindows


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What an evaluation prepares its data from: windows of a model's activations, or a world."""

    source: Source | WorldSource
    lm: LanguageModel | None  # the model read, or the one behind a world that has one
    # windows in order, each batch with the model's state to resume from; empty for a world
    batches: Sequence[tuple[Windows, Any]] = ()
    text: "TokenWindows | None" = None  # the windows of tokens that `batches` were read from
    world: "World | None" = None  # the true process, where it is known

    @property
    def model(self) -> LanguageModel:
        """The language model read. Raises `ValueError` on a ground that has none."""
        if self.lm is None:
            raise ValueError(
                "there is no language model behind this data; evaluate on a model and a text"
            )
        return self.lm
