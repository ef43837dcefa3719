"""Gradients of a model's predictions at its hook, of which estimates to second order are made."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saelab.types import LanguageModel


def label_gradient(
    lm: LanguageModel,
    x: Tensor,
    state: Any,
    draw: Callable[[Tensor], Tensor],
    keep: Tensor | None = None,
) -> Tensor:
    """Gradient `[B, T, D]` with respect to the activations x `[B, T, D]` of the log-probability of
    one label for each position, summed over the positions that `keep` `[B, T]` marks, else all.

    `draw` takes log-probabilities `[B, T, V]`, without a gradient, to labels `[B, T]`, or `[B, T -
    1]` where the last position has none. A position's gradient includes its effect on later
    predictions. Raises `ValueError` where no gradient reaches the hook, or one that is not finite.
    """
    with torch.enable_grad():
        x = precise(x.detach()).requires_grad_()
        log_p = differentiable(lm, lm.resume(x, state)).log_softmax(-1)  # [B, T, V]
        if log_p.isnan().any():
            raise ValueError(
                f"predictions from the activations at {lm.hook.name} are NaN; load the model in "
                "float32"
            )
        labels = draw(log_p.detach()).to(log_p.device)
        labelled = labels.shape[1]
        chosen = log_p[:, :labelled].gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        if keep is not None:
            chosen = chosen[keep[:, :labelled]]
        (g,) = torch.autograd.grad(chosen.sum(), x)
    if not torch.isfinite(g).all():
        raise ValueError(
            f"gradients at {lm.hook.name} become NaN or infinite; load the model in float32"
        )
    return g


def differentiable(lm: LanguageModel, logits: Tensor) -> Tensor:
    """The logits, float32 or better. Raises `ValueError` when they do not depend on the activations
    by a gradient.
    """
    if not logits.requires_grad:
        raise ValueError(
            f"the predictions of {type(lm).__name__} have no gradient with respect to the "
            f"activations at {lm.hook.name}: "
            "take torch.no_grad and .detach() out of its resume, and load its weights in a "
            "floating-point type, unquantised"
        )
    return precise(logits)


def precise(tensor: Tensor) -> Tensor:
    """The tensor in float32 or better."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
