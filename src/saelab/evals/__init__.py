"""Evaluations: (dictionary, data) -> typed result. `EVALS` is the table; a new evaluation is one
line in it.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from saelab.evals.common.world_result import WorldResult
from saelab.evals.composition import measure as composition
from saelab.evals.concepts import measure as concepts
from saelab.evals.consistency import measure as consistency
from saelab.evals.core import measure as core
from saelab.evals.disentangle import measure as disentangle
from saelab.evals.nces import on_models as nces_lm
from saelab.evals.nces import on_worlds as nces
from saelab.evals.spurious import measure as spurious
from saelab.evals.temporal import measure as temporal
from saelab.evals.truth import measure as truth
from saelab.text.windows import TokenWindows
from saelab.types import Dictionary, LanguageModel, Source, Windows

__all__ = ["EVALS", "WORLD_EVALS", "Evaluation", "WorldEvaluation", "check_evals"]


@dataclass(frozen=True)
class Evaluation:
    """`prepare(lm, batches, source, windows)` is made once for all dictionaries;
    `measure(dictionary, data)` is pure.

    `batches`: held-out `windows` of `source` with their activations and the model's state, in
    order.

    `requires(source)` lists what is missing before it can run on that source (labelled data, an
    instruct model, access to a gated model, a judge), one sentence each; empty when nothing is. It
    must not load a model.
    """

    prepare: Callable[..., Any]
    measure: Callable[..., Any]
    requires: Callable[[Source], list[str]]


def _nothing(source: Source) -> list[str]:
    """Any language model and any text will do."""
    return []


def _core(
    lm: LanguageModel, batches: Sequence[tuple[Windows, Any]], source: Source, windows: TokenWindows
) -> Any:
    """The core evaluation needs no more than the activations."""
    return core.prepare(lm, batches)


def _nces(
    lm: LanguageModel, batches: Sequence[tuple[Windows, Any]], source: Source, windows: TokenWindows
) -> Any:
    """So do interventions."""
    return nces_lm.prepare(lm, batches)


EVALS: dict[str, Evaluation] = {
    "core": Evaluation(_core, core.measure, _nothing),
    "nces": Evaluation(_nces, nces_lm.measure, _nothing),
    "concepts": Evaluation(concepts.prepare, concepts.measure, concepts.requires),
    "consistency": Evaluation(consistency.prepare, consistency.measure, consistency.requires),
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
    "nces": WorldEvaluation(nces.prepare, nces.measure),
    "composition": WorldEvaluation(composition.prepare, composition.measure),
    "temporal": WorldEvaluation(temporal.prepare, temporal.measure),
    "disentangle": WorldEvaluation(disentangle.prepare, disentangle.measure),
    "spurious": WorldEvaluation(spurious.prepare, spurious.measure),
}


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
    unmet = [f"{name}: {reason}" for name in names for reason in EVALS[name].requires(source)]
    if unmet:
        raise ValueError(
            f"evaluations that cannot run on {source.model} with {source.corpus}: "
            f"{'; '.join(unmet)}"
        )
