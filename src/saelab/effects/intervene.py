"""Batches of interventions on latents: what a model's predictions do when one latent is changed at
one position.

An intervention on latent j replaces the activation x at one position by x + c d_j, with d_j the
latent's unit decoder row and c its change of code. Everything else in x stays, the part that the
dictionary does not reconstruct included: a change of 0 is the untouched model. The effect is the
sum over the position and the next 16 of KL(p_clean || p_changed), nats; where the window ends
earlier, over what is left of it.

| type | c |
|---|---|
| zero | -f |
| mean | mu - f, mu the latent's mean over all positions, silent ones included |
| resample | f(x') - f, x' another position |
| noise | sigma eps, sigma the deviation of f where the latent is active, eps ~ N(0, 1) |
| steer | +2 sigma, where the latent is silent |

Control: the same positions and |c|, along u ~ N(0, Sigma) made orthogonal to d_j (Heimersheim &
Mendel 2024, arXiv 2410.12555, compare with directions of the activations' covariance; the error
node is that of Marks et al. 2024, 2403.19647).

Legend: S types | K control draws | N kept positions | M pairs | V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from saelab.effects.pairs import Codes, Pairs
from saelab.effects.reactions import MAX_BYTES, Text, check_model, reactions
from saelab.numbers import kl_of_near
from saelab.types import LanguageModel

TYPES = ("zero", "mean", "resample", "noise", "steer")
ON_SILENT = ("steer",)  # types for positions on which the latent is silent
FOLLOWING = 16  # positions after the changed one whose predictions count
NUMBERS_AT_ONCE = 1 << 22  # changes drawn in one block; part of what a seed means, unlike MAX_BYTES
CLIP, WIDEST, CLIPPINGS = 5.0, 5.0, 3  # of the control's covariance, see `control_covariance`
RIDGE = 1e-6  # of the mean variance, added to each dimension of it


# What is changed ----------------------------------------------------------------------------------


def check_types(types: Sequence[str]) -> None:
    """Raise `ValueError` for no type, an unknown one, or one given twice."""
    if not types or len({*types} & {*TYPES}) < len(types):
        raise ValueError(
            f"intervention types {list(types)}; give some of {', '.join(TYPES)}, each once"
        )


def changes(types: Sequence[str], codes: Codes, pairs: Pairs, generator: torch.Generator) -> Tensor:
    """How much each type of intervention changes the code of each pair, `[S, M]`.

    Raises `ValueError` for an unknown type. The draws do not depend on which types are asked for.
    """
    check_types(types)
    shift = torch.randint(1, max(codes.n, 2), pairs.row.shape, generator=generator)
    noise = torch.randn(pairs.row.shape, generator=generator)
    deviation = codes.deviation[pairs.latent]
    by_type = {
        "zero": -pairs.code,
        "mean": codes.mean[pairs.latent] - pairs.code,
        "resample": codes.at(pairs.latent, (pairs.row + shift) % codes.n) - pairs.code,
        "noise": deviation * noise,
        "steer": 2 * deviation,
    }
    return torch.stack([by_type[name] for name in types])


def control_covariance(x: Tensor) -> Tensor:
    """Covariance `[D, D]` of kept activations `[N, D]` in which no single dimension dominates.

    Each dimension is clipped to 5 standard deviations about its mean, three times over, so that
    rare huge values lose their weight; then a deviation above 5 times the median one is scaled down
    to that. A dimension thus carries at most 25 / (25 + D / 2) of the trace (massive activations:
    Sun et al. 2024, arXiv 2402.17762). The ridge makes it invertible.
    """
    x = x.double()
    for _ in range(CLIPPINGS):
        mean, deviation = x.mean(0), x.std(0)
        x = x.clamp(mean - CLIP * deviation, mean + CLIP * deviation)
    deviation = x.std(0)
    spread = deviation[deviation > 0]
    widest = WIDEST * spread.median() if len(spread) else torch.ones((), dtype=x.dtype)
    x = (x - x.mean(0)) * (widest / deviation.clamp_min(1e-300)).clamp(max=1)
    covariance = x.T @ x / max(len(x) - 1, 1)
    ridge = RIDGE * covariance.diagonal().mean().clamp_min(1e-30)
    return (covariance + ridge * torch.eye(len(covariance), dtype=x.dtype)).float()


def control_directions(directions: Tensor, root: Tensor, generator: torch.Generator) -> Tensor:
    """Unit directions from N(0, root root'), each orthogonal to one of `directions [..., D]`."""
    u = torch.randn(directions.shape, generator=generator, dtype=root.dtype) @ root.T
    u = u - (u * directions).sum(-1, keepdim=True) * directions
    return normalize(u, dim=-1)


# What the model says ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effects:
    """Effects in nats of each pair under each type."""

    own: Tensor  # [S, M] of the latent
    control: Tensor  # [S, M] of the mean of its control draws, NaN without any


@torch.no_grad()
def intervene(
    text: Text,
    directions: Tensor,
    pairs: Pairs,
    amounts: Tensor,
    covariance: Tensor,
    *,
    draws: int = 4,
    seed: int = 0,
    following: int = FOLLOWING,
    max_bytes: int = MAX_BYTES,
) -> Effects:
    """Effects of changing each pair's code by `amounts [S, M]` along unit `directions [L, D]`, and
    those of its controls.

    What is drawn depends on `seed` and not on `max_bytes`.
    """
    if amounts.ndim != 2 or amounts.shape[1] != len(pairs.row):
        raise ValueError(
            f"amounts are {list(amounts.shape)}; give one row per type, [S, {len(pairs.row)}]"
        )
    root = torch.linalg.cholesky(covariance.double()).float()
    generator = torch.Generator().manual_seed(seed)
    n_types, n_pairs = amounts.shape
    kl = torch.zeros(n_types, 1 + draws, n_pairs, dtype=torch.float32)
    size = max(1, NUMBERS_AT_ONCE // (n_types * (1 + draws) * directions.shape[1]))
    for block in text.position[pairs.row].argsort(descending=True, stable=True).split(size):
        d = directions[pairs.latent[block]].float().cpu()  # [n, D]
        u = control_directions(d.expand(n_types, draws, *d.shape), root, generator)  # [S, K, n, D]
        along = torch.cat([d.expand(n_types, 1, *d.shape), u], 1)
        delta = (amounts[:, None, block, None] * along).flatten(0, 1)  # [S (1 + K), n, D]
        for reaction in reactions(text, pairs.row[block], delta, following, max_bytes):
            effect = kl_of_near(reaction.clean.unsqueeze(0), reaction.changed).cpu()  # [c, n, q]
            where = reaction.changes.unsqueeze(1), block[reaction.pairs]
            kl.flatten(0, 1)[where] = (effect * reaction.inside).sum(-1)
    return Effects(kl[:, 0], kl[:, 1:].mean(1))


def sampled_gradients(
    lm: LanguageModel, x: Tensor, state: Any, generator: torch.Generator
) -> Tensor:
    """Gradient `[B, T, D]` at the hook of the window's summed log-probability of labels drawn from
    the model itself.

    Its products give the Fisher metric: E[(delta . g)^2] / 2 is the KL of a small change delta,
    summed over the window from its position on, for scores at different positions are uncorrelated.
    (The gradient of the KL itself is 0 at the clean point, and no estimator.) Raises `ValueError`
    where no gradient reaches the hook.
    """
    from saelab.effects.gradients import label_gradient

    check_model(lm)

    def draw(log_p: Tensor) -> Tensor:
        chances = log_p.exp().cumsum(-1)
        drawn = torch.rand(*x.shape[:2], 1, generator=generator, device=generator.device)
        labels = torch.searchsorted(chances, drawn.to(chances) * chances[..., -1:])
        return labels.clamp(max=chances.shape[-1] - 1).squeeze(-1)

    return label_gradient(lm, x, state, draw)
