"""A synthetic world as a ground: its stream is drawn, its truth is known."""

from pathlib import Path
from typing import Any

from saelab.ground.held_out import HeldOut
from saelab.runs import WorldSource
from saelab.synth.worlds import build_world


class WorldGround:
    """A world that was built. Its members are those of `model.ModelGround`."""

    weights_hash = None
    live = None  # drawing a batch costs as little as reading it from a disk
    remarks = ()  # nothing is left out and nothing repeats

    def __init__(self, source: WorldSource):
        """Raises `ValueError` for an unknown world or a number out of range."""
        self.source = source
        self.stream = build_world(source)  # every batch is new
        self.name, self.d_in = f"{source.world} seed {source.seed}", self.stream.d_in
        self.about: dict[str, Any] = {
            "model": f"world {self.stream.name}",
            "hook": self.stream.hook.name,
            "d_in": self.d_in,
            "n_features": len(self.stream.process.features),
        }
        self.facts = self.about

    def on_disk(self, folder: Path) -> "WorldGround":
        """Itself."""
        del folder
        return self

    def held_out(self) -> HeldOut:
        """The world; evaluations draw samples of it under names that training never uses."""
        return HeldOut(self.source, self.stream.lm, world=self.stream)
