"""Evaluations: (dictionary, data) -> typed result. `EVALS` is the table; a new evaluation is one line in it."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from saelab.evals import core
from saelab.types import Source

__all__ = ["EVALS", "Evaluation", "check_evals"]


@dataclass(frozen=True)
class Evaluation:
    """`prepare` runs the language model once for all dictionaries; `measure(dictionary, data)` is pure.

    `requires(source)` lists what is missing before it can run on that source (labelled data, an instruct model, access to
    a gated model, a judge), one sentence each; empty when nothing is. It must not load a model.
    """

    prepare: Callable[..., Any]
    measure: Callable[..., Any]
    requires: Callable[[Source], list[str]]


def _nothing(source: Source) -> list[str]:
    """Any language model and any text will do."""
    return []


EVALS: dict[str, Evaluation] = {
    "core": Evaluation(core.prepare, core.measure, _nothing),
}


def check_evals(names: Sequence[str], source: Source) -> None:
    """Raise `ValueError` for an unknown evaluation or an unmet precondition, before anything loads or trains."""
    for name in names:
        if name not in EVALS:
            near = difflib.get_close_matches(name, EVALS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"no evaluation is called {name!r}; {hint}There are: {', '.join(EVALS)}")
    unmet = [f"{name}: {reason}" for name in names for reason in EVALS[name].requires(source)]
    if unmet:
        raise ValueError(f"evaluations that cannot run on {source.model} with {source.corpus}: {'; '.join(unmet)}")
