"""Held-out data of a world that a test made itself."""

from saelab.ground.held_out import HeldOut
from saelab.runs import WorldSource
from saelab.synth.world import World


def as_held_out(world: World) -> HeldOut:
    """What evaluations prepare their data from."""
    source = WorldSource(world.name, {}, world.batch, world.batch, world.seed)
    return HeldOut(source, world.lm, world=world)
