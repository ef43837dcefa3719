"""Can one tree of features be removed alone, by a few activations that it is in?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.evals.composition.edges import tree_edges


@dataclass(frozen=True)
class Target:
    """A tree to be removed: a parent and its children."""

    labelled: Tensor  # numbers of activations that the parent is in, of the first half
    present: Tensor  # [N/2] bool: where it is, in the second half
    features: Tensor  # [1 + C, D] the parent's and its children's
    codes: Tensor  # [n, 1 + C] theirs, where the parent is present


@dataclass(frozen=True)
class Removal:
    """Means over targets, as shares of the target's energy."""

    removed: float
    collateral: float


def removal(
    z: Tensor,
    directions: Tensor,
    targets: Sequence[Target],
    *,
    labels: int,
    tree: Tensor | None = None,
) -> Removal:
    """What goes when the latents that stand out on `labels` labelled activations are set to 0, the
    mean over the targets; NaN where there is none.

    With t the contribution of the tree's features to x and a that of the ablated latents (codes `z
    [N, L]`, decoder rows `[L, D]`), `removed` = 1 - E|a - t|^2 / E|t|^2 where the parent is
    present, and `collateral` = (E|a|^2 where it is not + E|a outside the span of the tree's
    features|^2 where it is) / E|t|^2; all on the second half of the activations, labels and base
    rates from the first. As many latents as the tree has features: those whose firing is most
    enriched over the base rate, or, where the dictionary has a tree `[coarse, fine]` of its own,
    the coarse latent that stands out most and its children.
    """
    half = len(z) // 2
    known, new = z[:half], z[half:]
    rows = []
    for target in targets:
        n_latents = len(target.features)
        marked = known[target.labelled[:labels]]
        if tree is None:
            chosen = enriched(marked, known, n_latents)
        else:
            chosen = subtree(marked, known, tree, n_latents)
        removed = new[:, chosen] @ directions[chosen]  # [N/2, D]
        here, elsewhere = removed[target.present], removed[~target.present]
        truth = target.codes @ target.features
        energy = truth.square().sum()
        basis = torch.linalg.qr(target.features.T)[0]  # [D, 1 + C]
        outside = here - (here @ basis) @ basis.T
        share = 1 - (here - truth).square().sum() / energy
        collateral = (elsewhere.square().sum() + outside.square().sum()) / energy
        rows.append(torch.stack([share, collateral]))
    if not rows:
        return Removal(math.nan, math.nan)
    return Removal(*torch.stack(rows).mean(0).tolist())


def enriched(marked: Tensor, known: Tensor, n: int) -> Tensor:
    """At most n latents that fire on labelled activations `[M, L]`, by their rate there over their
    rate on all `known [N, L]`.

    Rates are smoothed with half an activation, so that a latent that fired once by chance does not
    come first.
    """
    rate = (known > 0).float().mean(0)
    fired = (marked > 0).float().sum(0)
    enrichment = (fired + 0.5 * rate) / (len(marked) + 0.5) / (rate + 1e-3)
    best = enrichment.where(fired > 0, 0.0).topk(min(n, len(rate)))
    return best.indices[best.values > 0]


def subtree(marked: Tensor, known: Tensor, tree: Tensor, n: int) -> Tensor:
    """The coarse latent whose mean code rises most on labelled activations `[M, L]`, and its
    children: at most n latents.

    `tree [coarse, fine]`: weights; of more children than n - 1, those of largest weight.
    """
    coarse = len(tree)
    root = (marked - known.mean(0))[:, :coarse].mean(0).argmax()
    weights = tree[root].where(tree_edges(tree, known.shape[1])[root, coarse:], 0.0)
    best = weights.topk(min(n - 1, len(weights)))
    return torch.cat([root.view(1), coarse + best.indices[best.values > 0]])
