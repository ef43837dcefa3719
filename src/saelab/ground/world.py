"""A synthetic world as a ground: its stream is drawn, its truth is known."""

from pathlib import Path
from typing import Any

from saelab.ground.held_out import HeldOut
from saelab.ground.stream import ActivationStream
from saelab.runs import WorldSource
from saelab.synth.worlds import build_world
from saelab.types import ActivationSource


class WorldGround:
    """A world that was built; satisfies `ground.Ground`."""

    weights_hash: str | None = None
    live: ActivationStream | None = None  # drawing a batch costs as little as reading it

    def __init__(self, source: WorldSource):
        """Raises `ValueError` for an unknown world or a number out of range."""
        self.source, self.world = source, build_world(source)
        self.name, self.d_in = f"{source.world} seed {source.seed}", self.world.d_in

    @property
    def stream(self) -> ActivationSource:
        """The world itself: every batch is new."""
        return self.world

    def on_disk(self, folder: Path) -> "WorldGround":
        """Itself."""
        del folder
        return self

    @property
    def about(self) -> dict[str, Any]:
        """World, hook, width and number of true features."""
        return {
            "model": f"world {self.world.name}",
            "hook": self.world.hook.name,
            "d_in": self.world.d_in,
            "n_features": len(self.world.process.features),
        }

    @property
    def facts(self) -> dict[str, Any]:
        """There is no more to say of its stream."""
        return self.about

    @property
    def remarks(self) -> list[str]:
        """Nothing is left out and nothing repeats."""
        return []

    def held_out(self) -> HeldOut:
        """The world; evaluations draw samples of it under names that training never uses."""
        return HeldOut(self.source, self.world.lm, world=self.world)
