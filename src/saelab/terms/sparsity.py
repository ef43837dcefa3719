"""Sparsity penalties: mean over positions of a sum over latents. `Steered` weighs them to an L0."""

from torch import Tensor

from saelab.terms.base import Step, TermFunction
from saelab.types import Number, value_at


def l1(step: Step) -> Tensor:
    """sum_j z_j ||W_dec_j||: scaled by decoder norms, so shrinking codes and growing decoder rows
    gains nothing.

    Conerly et al. 2024 (Anthropic, April update).
    """
    return (step.z * step.sae.W_dec.norm(dim=1)).sum(-1).mean()


def p_norm(p: Number) -> TermFunction:
    """sum_j (z_j ||W_dec_j||)^p over active latents, with p annealed from 1 towards 0 during
    training.

    Karvonen et al. 2024, 2408.00113, section 4: as p falls the coefficient is rescaled so that the
    size of the penalty does not change; here by the detached ratio of the L1 sum to the L_p sum of
    the same batch. The small constant bounds the gradient at z -> 0.
    """

    def term(step: Step) -> Tensor:
        scaled = step.z * step.sae.W_dec.norm(dim=1)
        powers = (scaled + 1e-4) ** value_at(p, step.progress) * (step.z.detach() > 0)
        powered = powers.sum(-1).mean()
        ratio = scaled.detach().sum(-1).mean() / powered.detach().clamp_min(1e-12)
        return ratio * powered

    return term


def gate_l1(step: Step) -> Tensor:
    """sum_j relu(gate_j) ||W_dec_j||, of Gated SAEs. Rajamanoharan et al. 2024, 2404.16014, (8)."""
    return (step.sae.act.gate(step.pre).relu() * step.sae.W_dec.norm(dim=1)).sum(-1).mean()


def jump_l0(step: Step) -> Tensor:
    """The number of active latents itself, differentiable in the thresholds by a pseudo-derivative.

    Rajamanoharan et al. 2024, 2407.14435, equations 9 to 12.
    """
    return step.sae.act.count(step.pre).mean()
