"""What the table of worlds says of each world: how it is built, what it tests, how SAEs are trained
on it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import get_type_hints

from saelab.numbers import Kind
from saelab.synth.world import Process


@dataclass(frozen=True)
class Setup:
    """How SAEs are trained on a world; the same for every row of its table."""

    n_latents: int
    k: float  # mean L0
    steps: int  # the standard length
    batch: int  # activations per step
    lr: float  # the prototypes' rate for every row
    decay: float = 0.3  # last share of the steps in which the rate falls to 0
    anneal: float = 1.0  # TopK families start from this multiple of k
    # activations without firing: rare features are not that rare here, and runs are short
    dead_after: int = 50_000
    levels: float = 5  # of Matryoshka: n/2^(levels - 1), ..., n/2, n
    # of Matryoshka, where the levels are not halves: two levels, the first `inner` latents and all
    inner: float = 0


@dataclass(frozen=True)
class Entry:
    """One world of the table."""

    tests: str  # what a win on it shows, one sentence
    # (seed, *, numbers) -> process; the numbers are what --set may change
    build: Callable[..., Process]
    setup: Setup
    headline: tuple[str, ...]  # metrics of the table, the first decides learning rates
    head: str  # the world of its family that learning rates are chosen on
    # numbers of `build` that differ from its defaults
    settings: Mapping[str, float] = field(default_factory=dict)

    @property
    def process(self) -> type:
        """The class of its process, as `build` declares it; nothing is built."""
        return get_type_hints(self.build)["return"]


def check_kind(kind: Kind, **numbers: float) -> None:
    """Refuse numbers of a world, given by their names, that are not of this kind.

    Raises `ValueError` naming the first one, its value and the range; NaN is always outside.
    """
    for name, value in numbers.items():
        kind.check(name, value)
