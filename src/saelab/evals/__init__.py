"""Evaluations: (dictionary, data) -> `Result`. `EVALS` is the table; a new evaluation is one line
in it.
"""

import difflib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from saelab.evals import concepts, consistency, core, nces
from saelab.evals.common.world_result import WorldResult
from saelab.evals.composition import measure as composition
from saelab.evals.disentangle import measure as disentangle
from saelab.evals.nces import on_worlds as nces_world
from saelab.evals.result import Evaluation, Metric
from saelab.evals.spurious import measure as spurious
from saelab.evals.temporal import measure as temporal
from saelab.evals.truth import measure as truth
from saelab.types import Dictionary, Source

__all__ = [
    "EVALS",
    "WORLD_EVALS",
    "Evaluation",
    "Metric",
    "WorldEvaluation",
    "check_evals",
    "headlines",
    "metric_of",
]

EVALS: dict[str, Evaluation] = {
    "core": core.EVALUATION,
    "nces": nces.EVALUATION,
    "concepts": concepts.EVALUATION,
    "consistency": consistency.EVALUATION,
}


@dataclass(frozen=True)
class WorldEvaluation:
    """`prepare(world)` draws held-out samples once for all dictionaries; `measure(dictionary,
    data)` is pure.

    `prepare` raises `TypeError` for a world that does not hold what is measured.
    """

    prepare: Callable[..., Any]
    measure: Callable[[Dictionary, Any], WorldResult]


WORLD_EVALS: dict[str, WorldEvaluation] = {
    "truth": WorldEvaluation(truth.prepare, truth.measure),
    "nces": WorldEvaluation(nces_world.prepare, nces_world.measure),
    "composition": WorldEvaluation(composition.prepare, composition.measure),
    "temporal": WorldEvaluation(temporal.prepare, temporal.measure),
    "disentangle": WorldEvaluation(disentangle.prepare, disentangle.measure),
    "spurious": WorldEvaluation(spurious.prepare, spurious.measure),
}


BATCH = "_batch"  # ends the key of the same metric with codes under batch selection


def metric_of(key: str, evals: Iterable[str] = ()) -> Metric:
    """Label, direction and meaning of a score: of the first of `evals`, then of all, that has it.

    `<key>_batch` is explained by `<key>`; what nobody explains is called by its own name.
    """
    for name in (*evals, *EVALS):
        for metric in EVALS[name].metrics:
            if metric.key == key:
                return metric
    if key.endswith(BATCH):
        own = metric_of(key.removesuffix(BATCH), evals)
        meaning = f"{own.meaning.rstrip('.')}; codes under batch selection, not the threshold."
        return Metric(key, f"{own.label} (batch)", own.better, meaning if own.meaning else "")
    return Metric(key, key.replace("_", " "), "neither", "")


def headlines(keys: Collection[str]) -> list[Metric]:
    """The metrics among `keys` that stand in short tables, in their order, an evaluation after the
    other.
    """
    found: dict[str, Metric] = {}
    for evaluation in EVALS.values():
        for metric in sorted(evaluation.metrics, key=lambda metric: metric.headline):
            if metric.headline and metric.key in keys:
                found.setdefault(metric.key, metric)
    return list(found.values())


def check_evals(names: Sequence[str], source: Source) -> None:
    """Raise `ValueError` for an unknown evaluation or an unmet precondition, before anything loads
    or trains.
    """
    for name in names:
        if name not in EVALS:
            near = difflib.get_close_matches(name, EVALS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"no evaluation is called {name!r}; {hint}There are: {', '.join(EVALS)}"
            )
    unmet = [f"{name}: {reason}" for name in names for reason in EVALS[name].missing(source)]
    if unmet:
        raise ValueError(
            f"evaluations that cannot run on {source.model} with {source.corpus}: "
            f"{'; '.join(unmet)}"
        )
