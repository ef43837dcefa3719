"""Events: what changes an SAE during training instead of adding to its loss."""

from collections.abc import Callable

import torch

from saelab.sae.kernels import kth_largest
from saelab.sae.module import SAE
from saelab.terms.base import Step


def evenly(n: int) -> tuple[float, ...]:
    """`n` fractions of training that lie evenly, for an `Event`: none at its start or end."""
    return tuple((i + 1) / (n + 1) for i in range(n))


def start_sparse(l0: float) -> Callable[[SAE, torch.optim.Optimizer, Step], None]:
    """Lower all biases (JumpReLU: raise all thresholds) by one number so that training starts from
    a mean L0 of `l0`.

    From zero biases half of all latents are active, and a penalty spends most of a short run on
    undoing that. Where `l0` is more than that already, nothing moves.
    """

    @torch.no_grad()
    def event(sae: SAE, optimizer: torch.optim.Optimizer, step: Step) -> None:
        del optimizer
        k = max(1, min(step.pre.numel(), round(l0 * len(step.pre))))
        sae.act.start_above_(max(0.0, float(kth_largest(step.pre, k))), sae.b_enc)

    return event


@torch.no_grad()
def resample(sae: SAE, optimizer: torch.optim.Optimizer, step: Step) -> None:
    """Point dead latents at what is reconstructed worst, and forget their optimizer state.

    Inputs are drawn with probability proportional to squared loss; the encoder column gets .2 of
    the mean norm of the alive ones and the bias starts at 0. Bricken et al. 2023, "Towards
    Monosemanticity", neuron resampling.
    """
    dead = step.dead.nonzero().squeeze(-1)
    alive = (~step.dead).nonzero().squeeze(-1)
    if len(dead) == 0 or len(alive) == 0:
        return
    error = step.x - step.x_hat
    weight = error.square().sum(-1).square() + 1e-12
    # else no input twice: two latents with equal weights would stay equal for good
    twice = len(dead) > len(error)
    rows = torch.multinomial(weight.cpu(), len(dead), twice, generator=step.generator)
    drawn = error[rows.to(error.device)]
    direction = drawn / drawn.norm(dim=1, keepdim=True).clamp_min(1e-12)
    sae.W_dec[dead] = direction
    sae.W_enc[:, dead] = direction.T * (0.2 * sae.W_enc[:, alive].norm(dim=0).mean())
    for vector, start in _per_latent(sae):
        vector[dead] = start if start is not None else vector[alive].median()
    for parameter, axis in _parameters(sae):
        for moment in _moments(optimizer, parameter):
            moment.index_fill_(axis, dead, 0.0)


@torch.no_grad()
def reorder(sae: SAE, optimizer: torch.optim.Optimizer, order: torch.Tensor) -> None:
    """Put latents in another order, optimizer state included: latent i is from now on what latent
    `order[i]` was, `[L]`.
    """
    for parameter, axis in _parameters(sae):
        for tensor in (parameter, *_moments(optimizer, parameter)):
            tensor.copy_(tensor.index_select(axis, order))  # in place: the layout in memory stays


def _parameters(sae: SAE) -> list[tuple[torch.Tensor, int]]:
    """Every parameter that has latents, and along which axis."""
    return [(sae.W_dec, 0), (sae.W_enc, 1), *((vector, 0) for vector, _ in _per_latent(sae))]


def _moments(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> list[torch.Tensor]:
    """What the optimizer remembers of each entry of a parameter."""
    tensors = [t for t in optimizer.state.get(parameter, {}).values() if torch.is_tensor(t)]
    return [moment for moment in tensors if moment.shape == parameter.shape]


def _per_latent(sae: SAE) -> list[tuple[torch.Tensor, float | None]]:
    """The SAE's vectors over latents and what a resampled latent starts from (None: the median of
    the alive ones).
    """
    return [(sae.b_enc, 0.0), *sae.act.per_latent()]
