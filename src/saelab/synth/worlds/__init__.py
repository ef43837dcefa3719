"""Worlds whose true features are known. `WORLDS` is the table; a new world is an entry in its
family's file.
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import fields, replace

from saelab.numbers import entry_called, nearest_name
from saelab.runs import WorldSource
from saelab.synth.entry import Entry, Setup
from saelab.synth.world import World
from saelab.synth.worlds import (
    s1_causal,
    s2_tree,
    s3_persistence,
    s4_factors,
    s5_spurious,
    synthsaebench,
)

WORLDS: dict[str, Entry] = {
    **s1_causal.ENTRIES,
    **s2_tree.ENTRIES,
    **s3_persistence.ENTRIES,
    **s4_factors.ENTRIES,
    **s5_spurious.ENTRIES,
    **synthsaebench.ENTRIES,
}
COUNTS = ("n_latents", "steps", "batch", "dead_after")  # numbers of a Setup that are whole


def entry_of(world: str) -> Entry:
    """The entry of a world. Raises `ValueError` naming the nearest one."""
    return entry_called(world, WORLDS, "world")


def parameters(world: str) -> dict[str, float]:
    """The numbers of a world that may be changed, with their values in it."""
    entry = entry_of(world)
    given = inspect.signature(entry.build).parameters.values()
    return {p.name: p.default for p in given if p.kind is p.KEYWORD_ONLY} | dict(entry.settings)


def configure(world: str, changes: Mapping[str, float]) -> tuple[dict[str, float], Setup]:
    """What `changes` make of a world: the numbers given to its `build`, and how SAEs are trained on
    it.

    A change names a parameter of the world, or a number of its setup (k, n_latents, steps, batch,
    lr, ...). Raises `ValueError` naming the nearest one, or saying what a number must be.
    """
    entry, world_numbers = entry_of(world), parameters(world)
    names = [*world_numbers, *(field.name for field in fields(Setup))]
    settings, setup = dict(entry.settings), {}
    for name, value in changes.items():
        if name not in names:
            raise ValueError(
                f"world {world!r} has no number {name!r}{nearest_name(name, names)}; it has "
                f"{', '.join(names)}"
            )
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value:g}; it must be a finite number")
        if name in world_numbers:
            settings[name] = value
        elif name in COUNTS and (value < 1 or value != round(value)):
            raise ValueError(f"{name} is {value:g}; it must be a whole number, 1 or more")
        elif value < 0:
            raise ValueError(f"{name} is {value:g}; it must be 0 or more")
        else:
            setup[name] = int(value) if name in COUNTS else value
    return settings, replace(entry.setup, **setup)


def build_world(source: WorldSource) -> World:
    """The world of a source: equal sources, equal worlds. Raises `ValueError` as its `build`
    does.
    """
    process = entry_of(source.world).build(source.seed, **source.settings)
    return World(source.world, process, seed=source.seed, batch=source.batch)
