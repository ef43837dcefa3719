"""Reconstruction terms. Squared error is summed over D and averaged over positions."""

import torch
from torch import Tensor

from saelab.terms.base import Step, TermFunction


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """mean over positions of ||x - x_hat||^2; a scalar >= 0, in squared input units."""
    return (x - x_hat).square().sum(-1).mean()


def mse(step: Step) -> Tensor:
    """||x - x_hat||^2, summed over D, averaged over positions."""
    return squared_error(step.x, step.x_hat)


def tilted_mean(errors: Tensor, tilt: float) -> Tensor:
    """(1/t) log mean exp(t e) of errors e `[N]`: their mean at t = 0, their largest as t grows;
    never below the mean.

    Its gradient weighs positions by exp(t e), normalised: badly reconstructed ones more. `tilt` is
    in units of 1 / error. Li et al. 2020, "Tilted Empirical Risk Minimization", 2007.01162,
    equation 2.
    """
    if tilt == 0:
        return errors.mean()
    # exponents <= 0; expm1 and log1p keep the digits of a small tilt
    largest = errors.detach().max()
    return largest + (tilt * (errors - largest)).expm1().mean().log1p() / tilt


def prefix_mse(
    widths: tuple[int, ...], *, detach: float = 0, inner_weight: float = 1, tilt: float = 0
) -> TermFunction:
    """Matryoshka: the weighted mean of the errors of the reconstructions by the first w latents,
    for each w in `widths`.

    The last width is the whole dictionary and has weight 1, the others `inner_weight`. Bussmann et
    al. 2025, 2503.17547, section 3 (sum over levels; here the mean, so that the scale of the loss
    does not depend on the number of levels). `detach` 1: to a level's loss the latents of the
    levels before it are constants, so that it trains its own latents and `b_dec` alone; 0: all up
    to w. `tilt`: of the mean over positions, see `tilted_mean`.
    """

    def term(step: Step) -> Tensor:
        total, weights = step.x.new_zeros(()), 0.0
        before, start = step.sae.b_dec.expand_as(step.x), 0
        for i, width in enumerate(widths):
            added = step.sae.decode_part(step.z, range(start, width))
            x_hat = before + added
            weight = inner_weight if i + 1 < len(widths) else 1.0
            total = total + weight * tilted_mean((step.x - x_hat).square().sum(-1), tilt)
            weights += weight
            before, start = before + added.detach() if detach else x_hat, width
        return total / weights

    return term


def gate_mse(step: Step) -> Tensor:
    """Gated SAE's auxiliary error: x reconstructed from the gate's positive part, the decoder
    frozen.

    ||x - (relu(gate) @ sg(W_dec) + sg(b_dec))||^2. Rajamanoharan et al. 2024, 2404.16014, equation
        8.
    """
    x_hat = step.sae.act.gate(step.pre).relu() @ step.sae.W_dec.detach() + step.sae.b_dec.detach()
    return squared_error(step.x, x_hat)


def aux_k(k_aux: int) -> TermFunction:
    """AuxK: the k_aux largest pre-activations of dead latents reconstruct what the SAE left over.

    ||e - e_hat||^2 with e = sg(x - x_hat); 0 when no latent is dead. Gao et al. 2024, 2406.04093,
        appendix A.2.
    """

    def term(step: Step) -> Tensor:
        dead = step.dead.nonzero().squeeze(-1)
        if len(dead) == 0:
            return step.x.new_zeros(())
        pre = step.pre[..., dead]
        top = pre.topk(min(k_aux, len(dead)), dim=-1, sorted=False)
        codes = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
        return squared_error((step.x - step.x_hat).detach(), codes @ step.sae.W_dec[dead])

    return term
