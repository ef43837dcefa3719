"""What evaluations on synthetic worlds share: which worlds they read, and how their scores look."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, TypeVar

from saelab.evals.common.reading import check_latents
from saelab.evals.common.selected import batch_selected
from saelab.evals.result import Metric, Result
from saelab.ground.held_out import HeldOut
from saelab.runs import Source, WorldSource
from saelab.synth.world import World
from saelab.synth.worlds import WORLDS, entry_of
from saelab.types import Dictionary, Score

BATCH = "_batch"  # ends the key of a metric whose codes are those of batch selection

Missing = Callable[[Source | WorldSource], list[str]]
Measure = Callable[[Dictionary, Any], Result]
P = TypeVar("P")


def world_score(value: float, n: int, otherwise: str = "") -> Score:
    """A number measured on n activations of one world: its interval is over seeds.

    A value that is not finite is undefined, and `otherwise` says why.
    """
    if isfinite(value):
        return Score(float(value), n=n)
    assert otherwise, f"a score is {value}, and nothing says why"
    return undefined(otherwise)


def undefined(reason: str) -> Score:
    """A number that does not exist here, and why."""
    return Score(None, reason=reason)


def only_on_worlds(what: str, *processes: type) -> Missing:
    """What a source lacks for an evaluation that reads worlds made by one of these `processes`.

    `what` such a world has, in words ("a tree of features"). Answers from the table of worlds:
    nothing is built.
    """

    def missing(source: Source | WorldSource) -> list[str]:
        if isinstance(source, WorldSource) and issubclass(
            entry_of(source.world).process, processes
        ):
            return []
        names = [name for name, entry in WORLDS.items() if issubclass(entry.process, processes)]
        which = "every world" if len(names) == len(WORLDS) else f"of the worlds {', '.join(names)}"
        return [f"{source.where} has no {what}; {which} has"]

    return missing


def world_of(held: HeldOut) -> World:
    """The world that held-out data are of; `only_on_worlds` has refused what is none."""
    assert held.world is not None, f"{held.source} is no world"
    return held.world


def process_of(held: HeldOut, kind: type[P], lack: str) -> P:
    """The process of such a world. Raises `TypeError` with what another one lacks."""
    world = world_of(held)
    if not isinstance(world.process, kind):
        raise TypeError(f"world {world.name!r} {lack}")
    return world.process


def with_batch_readings(metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """The metrics, and each once more under batch selection (see `in_both_readings`)."""
    again = (
        replace(
            metric,
            key=f"{metric.key}{BATCH}",
            label=f"{metric.label} (batch)",
            meaning=f"{metric.meaning} Codes are selected over the batch, as in training, not by "
            "the threshold.",
            headline=0,
        )
        for metric in metrics
    )
    return (*metrics, *again)


def in_both_readings(measure: Measure) -> Measure:
    """`measure` under the inference threshold and, as `<key>_batch`, under batch selection.

    The second reading only exists for a dictionary whose training selects over the batch. A
    dictionary without latents is refused with a `ValueError`.
    """

    def measure_both(dictionary: Dictionary, data: Any) -> Result:
        check_latents(dictionary)
        result, selected = measure(dictionary, data), batch_selected(dictionary)
        if selected is None:
            return result
        batch = measure(selected, data).scores
        again = {f"{key}{BATCH}": score for key, score in batch.items()}
        return replace(result, scores={**result.scores, **again})

    return measure_both
