"""Evaluations: (dictionary, data) -> result. `EVALS` is the table; a new evaluation is one line in
it.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from saelab.evals import composition, disentangle, spurious, temporal, truth
from saelab.evals.concepts import measure as concepts
from saelab.evals.consistency import measure as consistency
from saelab.evals.core import measure as core
from saelab.evals.nces import on_models as nces_lm
from saelab.evals.nces import on_worlds as nces_world
from saelab.evals.result import Evaluation
from saelab.ground.held_out import HeldOut
from saelab.runs import Source, WorldSource

__all__ = ["EVALS", "Evaluation", "check_evals", "standard_evals"]


def _of_model(
    prepare: Callable[..., Any],
    measure: Callable[..., Any],
    requires: Callable[[Source], list[str]] = lambda _: [],
    *,
    labels: bool = False,
) -> Evaluation:
    """An evaluation on a language model that has not been converted yet."""

    def missing(source: Source | WorldSource) -> list[str]:
        if isinstance(source, WorldSource):
            return [f"it reads a language model, and {source.world!r} is a synthetic world"]
        return requires(source)

    def from_held_out(held: HeldOut) -> Any:
        more = (held.source, held.text) if labels else ()
        return prepare(held.lm, held.batches, *more)

    return Evaluation((), missing, from_held_out, measure)


EVALS: dict[str, Evaluation] = {
    "core": _of_model(core.prepare, core.measure),
    "nces": _of_model(nces_lm.prepare, nces_lm.measure),
    "concepts": _of_model(concepts.prepare, concepts.measure, concepts.requires, labels=True),
    "consistency": _of_model(
        consistency.prepare, consistency.measure, consistency.requires, labels=True
    ),
    "truth": truth.EVALUATION,
    "nces_world": nces_world.EVALUATION,
    "composition": composition.EVALUATION,
    "temporal": temporal.EVALUATION,
    "disentangle": disentangle.EVALUATION,
    "spurious": spurious.EVALUATION,
}
# made where nobody says which, if the source has what they need
STANDARD = tuple(name for name in EVALS if name not in ("nces", "concepts", "consistency"))


def standard_evals(source: Source | WorldSource) -> tuple[str, ...]:
    """What is made of an SAE where nobody says which evaluations: on a language model the core
    scores, in a world all that can be measured there.
    """
    return tuple(name for name in STANDARD if not EVALS[name].missing(source))


def check_evals(names: Sequence[str], source: Source | WorldSource) -> None:
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
        where = (
            f"{source.model} with {source.corpus}"
            if isinstance(source, Source)
            else f"world {source.world!r}"
        )
        raise ValueError(f"evaluations that cannot run on {where}: {'; '.join(unmet)}")
