"""The table of evaluations, and what is asked of all of them: labels, headlines, preconditions."""

from collections.abc import Collection, Iterable, Sequence

from saelab.evals import (
    composition,
    concepts,
    consistency,
    core,
    disentangle,
    nces,
    spurious,
    temporal,
    truth,
)
from saelab.evals.nces import on_worlds as nces_world
from saelab.evals.result import Evaluation, Metric
from saelab.evals.temporal import on_worlds as temporal_world
from saelab.numbers import entry_called
from saelab.runs import Source, WorldSource

EVALS: dict[str, Evaluation] = {
    "core": core.EVALUATION,
    "nces": nces.EVALUATION,
    "concepts": concepts.EVALUATION,
    "consistency": consistency.EVALUATION,
    "truth": truth.EVALUATION,
    "nces_world": nces_world.EVALUATION,
    "composition": composition.EVALUATION,
    "temporal": temporal.EVALUATION,
    "temporal_world": temporal_world.EVALUATION,
    "disentangle": disentangle.EVALUATION,
    "spurious": spurious.EVALUATION,
}
ASKED = ("nces", "concepts", "consistency", "temporal")  # made only where somebody says so
STANDARD = tuple(name for name in EVALS if name not in ASKED)


def standard_evals(source: Source | WorldSource) -> tuple[str, ...]:
    """What is made of an SAE where nobody says which evaluations: on a language model the core
    scores, in a world all that can be measured there.
    """
    return tuple(name for name in STANDARD if not EVALS[name].missing(source))


def named(name: str) -> Evaluation:
    """The evaluation called `name`. Raises `ValueError` with the nearest name if there is none."""
    return entry_called(name, EVALS, "evaluation")


def metric_of(key: str, evals: Iterable[str] = ()) -> Metric:
    """Label, direction and meaning of a score: of the first of `evals`, then of all, that has it.
    What nobody explains is called by its own name.
    """
    for name in (*evals, *EVALS):
        for metric in EVALS[name].metrics:
            if metric.key == key:
                return metric
    return Metric(key, key.replace("_", " "), "neither", "")


def headlines(keys: Collection[str]) -> dict[str, list[Metric]]:
    """The metrics among `keys` that stand in short tables, in order, under the title of their
    evaluation; each once, under the first that has it.
    """
    tables: dict[str, list[Metric]] = {}
    told: set[str] = set()
    for name, evaluation in EVALS.items():
        shown = [m for m in evaluation.metrics if m.headline and m.key in {*keys} - told]
        told |= {metric.key for metric in shown}
        if shown:
            shown.sort(key=lambda metric: metric.headline)
            tables.setdefault(evaluation.title or name, []).extend(shown)
    return tables


def check_evals(names: Sequence[str], source: Source | WorldSource) -> None:
    """Raise `ValueError` for an unknown evaluation or an unmet precondition, before any work."""
    unmet = [f"{name}: {reason}" for name in names for reason in named(name).missing(source)]
    if unmet:
        raise ValueError(f"evaluations that cannot run on {source.where}: {'; '.join(unmet)}")
