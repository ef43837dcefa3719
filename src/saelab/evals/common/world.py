"""What evaluations on synthetic worlds share: which worlds they read, and how their scores look."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, TypeVar

from saelab.evals.common.reading import check_latents
from saelab.evals.common.selected import batch_selected
from saelab.evals.result import Evaluation, Metric, Result
from saelab.ground.held_out import HeldOut
from saelab.runs import Source, WorldSource
from saelab.synth.world import World
from saelab.synth.worlds import WORLDS, entry_of
from saelab.types import Dictionary, Score

BATCH = "_batch"  # ends the key of a metric whose codes are those of batch selection

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


def world_of(held: HeldOut) -> World:
    """The world that held-out data are of; `missing` has refused what is none."""
    assert held.world is not None, f"{held.source} is no world"
    return held.world


def process_of(held: HeldOut, kind: type[P], lack: str) -> P:
    """The process of such a world. Raises `TypeError` with what another one lacks."""
    world = world_of(held)
    if not isinstance(world.process, kind):
        raise TypeError(f"world {world.name!r} {lack}")
    return world.process


def world_evaluation(
    metrics: Sequence[Metric],
    prepare: Callable[[HeldOut], Any],
    measure: Measure,
    *,
    what: str,
    reads: tuple[type, ...],
    title: str,
) -> Evaluation:
    """An evaluation of worlds, each score of it in two readings of the codes: under the inference
    threshold and, as `<key>_batch`, under batch selection.

    `reads`: the processes of the worlds that it can read; `what` such a world has, in words ("tree
    of features"). The second reading only exists for a dictionary whose training selects over the
    batch. Measuring a dictionary without latents raises `ValueError`.
    """

    def missing(source: Source | WorldSource) -> list[str]:
        # answered from the table of worlds: nothing is built
        if isinstance(source, WorldSource) and issubclass(entry_of(source.world).process, reads):
            return []
        names = [name for name, entry in WORLDS.items() if issubclass(entry.process, reads)]
        which = "every world" if len(names) == len(WORLDS) else f"of the worlds {', '.join(names)}"
        return [f"{source.where} has no {what}; {which} has"]

    def measure_both(dictionary: Dictionary, data: Any) -> Result:
        check_latents(dictionary)
        result, selected = measure(dictionary, data), batch_selected(dictionary)
        if selected is None:
            return result
        batch = measure(selected, data).scores
        again = {f"{key}{BATCH}": score for key, score in batch.items()}
        return replace(result, scores={**result.scores, **again})

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
    return Evaluation((*metrics, *again), missing, prepare, measure_both, title)
