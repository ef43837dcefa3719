"""Which latents are read as parents of which: from firing alone, from the codes, and from the
dictionary's own tree.

Graphs are `[L, L]` tables of bool: entry (i, j) says that latent i is a parent of latent j.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# an edge's least weight, and its least share of its parent's weights; fixed, so that no label
# chooses it
EDGE = 0.05
RARE = 1e-4  # a latent that fires less often has no parent
PENALTY, STEPS = 2e-3, 300  # l1 of the read-out, on codes of unit scale; of its solution
THRESHOLDS = tuple(i / 100 for i in range(10, 100, 5))  # of lift


@dataclass(frozen=True)
class Coverage:
    """The coverage graph that fits the truth best."""

    f1: float
    threshold: float | None  # of lift; None where no graph has a true edge
    graph: Tensor  # [L, L] bool


def f1(graph: Tensor, truth: Tensor, n_true: int) -> float:
    """F1 of a graph's edges: `truth [L, L]` has the true edges both ends of which have a latent, of
    `n_true` that there are.
    """
    hits, n_edges = int((graph & truth).sum()), int(graph.sum())
    return 2 * hits / (n_edges + n_true) if hits else 0.0


def lifts(firing: Tensor) -> Tensor:
    """(P(i fires | j fires) - P(i)) / (1 - P(i)) `[L, L]` of `firing [N, L]`; -1 where i is not the
    more frequent one.
    """
    on = firing.float()
    rate = on.mean(0)
    given = (on.T @ on) / len(on) / rate.clamp_min(1e-9)  # [i, j]
    lift = (given - rate.unsqueeze(1)) / (1 - rate.unsqueeze(1)).clamp_min(1e-9)
    comparable = (rate.unsqueeze(1) > rate) & (rate >= RARE)
    return lift.where(comparable, -1.0)


def best_coverage(firing: Tensor, truth: Tensor, n_true: int) -> Coverage:
    """The graph of largest F1 among those that link i to j where lift is above a threshold (.10,
    .15, ..., .95).

    Either all such i are parents of j or only the one of largest lift. Threshold and rule are
    chosen **on the truth**, so this flatters every dictionary: it says what the codes hold, not
    what could be read from them without labels.
    """
    lift = lifts(firing)
    largest = lift == lift.amax(0)
    best = Coverage(0.0, None, torch.zeros_like(truth))
    for threshold in THRESHOLDS:
        for graph in (lift > threshold, (lift > threshold) & largest):
            score = f1(graph, truth, n_true)
            if score > best.f1:
                best = Coverage(score, threshold, graph)
    return best


def tree_edges(weights: Tensor, n_latents: int) -> Tensor:
    """Edges of a weight table `[coarse, fine]`, the first and the other latents: weight and share
    of its row above .05.

    Raises `ValueError` where the table does not fit the dictionary.
    """
    coarse, fine = weights.shape
    if coarse + fine != n_latents:
        raise ValueError(
            f"the dictionary's tree is [{coarse}, {fine}] and it has {n_latents} latents; coarse "
            "and fine ones must be all"
        )
    return placed(weights, torch.arange(coarse), torch.arange(coarse, n_latents), n_latents)


def lasso_edges(z: Tensor, first: range) -> Tensor:
    """Edges read from codes `z [N, L]` without labels: each latent of the first block, from all
    latents outside of it.

    W = argmin over W >= 0 of mean |z_first / sd - W (z_rest / rms)|^2 / 2 + .002 |W|_1, in the
    codes' units again, cut as `tree_edges` cuts.
    """
    latents = torch.arange(z.shape[1])
    inside = (latents >= first.start) & (latents < first.stop)
    parents, children = latents[inside], latents[~inside]
    coarse, fine = z[:, parents], z[:, children]
    sd, rms = positive(coarse.std(0)), positive(fine.square().mean(0).sqrt())
    weights = nonnegative_lasso(fine / rms, coarse / sd)
    return placed(weights * sd.unsqueeze(1) / rms, parents, children, z.shape[1])


def nonnegative_lasso(inputs: Tensor, targets: Tensor) -> Tensor:
    """Weights >= 0 `[P, C]` of targets `[N, P]` on inputs `[N, C]`, by proximal gradient (ISTA)."""
    gram, cross = inputs.T @ inputs / len(inputs), targets.T @ inputs / len(inputs)
    rate = 1 / torch.linalg.eigvalsh(gram)[-1].clamp_min(1e-9)
    weights = torch.zeros_like(cross)
    for _ in range(STEPS):
        weights = (weights - rate * (weights @ gram - cross + PENALTY)).relu()
    return weights


def placed(weights: Tensor, parents: Tensor, children: Tensor, n_latents: int) -> Tensor:
    """The graph `[L, L]` of a weight table `[P, C]` whose rows and columns are these latents."""
    share = weights / positive(weights.sum(1, keepdim=True))
    graph = torch.zeros(n_latents, n_latents, dtype=torch.bool)
    graph[parents.unsqueeze(1), children] = (weights > EDGE) & (share > EDGE)
    return graph


def positive(scale: Tensor) -> Tensor:
    """A scale to divide by: 1 where it is 0."""
    return scale.where(scale > 0, 1.0)
