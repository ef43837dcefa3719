"""A variant from what somebody wrote: a `Variant`, or just a module with `encode` and `decode`."""

from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from saelab.sae.module import SAE
from saelab.sae.own import CURE, OwnSAE
from saelab.terms.base import LossFunction, Objective, Step, Term, Variant
from saelab.terms.reconstruct import mse
from saelab.types import Hook


def variant_of(written: object, d_in: int, hook: Hook | None, source: str) -> Variant:
    """What a `build` gave as the variant that is trained, on activations of width `d_in`.

    A `Variant` stays as it is, but for a module of somebody's own in the place of its SAE. A module
    alone is trained on its `loss(x)`, where x `[N, D]` are activations of mean squared norm 1, or,
    where it has none, on the squared error of its reconstruction. `source`: the text of the file
    that defines it. Raises `TypeError` with the cure for anything else.
    """
    if not isinstance(written, Variant | nn.Module):
        raise TypeError(
            f"build returned {type(written).__name__}; it must return a Variant or a module: {CURE}"
        )
    module = written.sae if isinstance(written, Variant) else written
    if isinstance(module, SAE | OwnSAE):
        sae = module
        sae.hook = hook
    else:
        sae = OwnSAE(module, d_in, hook=hook, source=source)
    # the loop asks no more of an SAE than OwnSAE has; what a term asks of it, the module answers
    sae = cast(SAE, sae)
    if isinstance(written, Variant):
        return replace(written, sae=sae)
    return Variant(sae, Objective(Term("loss", _loss_of(written))))


def _loss_of(module: nn.Module) -> LossFunction:
    if not callable(getattr(module, "loss", None)):
        return mse

    def loss(step: Step) -> Tensor:
        return cast(Any, module).loss(step.x)

    return loss
