"""How strongly a model's predictions react to each direction of its activations: the Fisher metric
at a hook.

Everything goes through `types.LanguageModel`: activations are put in at the hook, the layers above
run forward and backward, the layers below and the model's weights get no gradient.

Legend: B windows | T positions | N kept positions | D width | C clusters of x | R rows of a factor
of M
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor

from saelab.effects.gradients import label_gradient, precise
from saelab.numbers import Kind, kl
from saelab.types import ActivationSource, Hook, LanguageModel, Windows

# drawn from the model's own distribution, or the tokens that follow in the text
Labels = Literal["model", "data"]
SAMPLE = 16_384  # activations that clusters, leading directions and spreads are found from
PIECE = 1_024  # positions that run forward and backward at once


@dataclass(frozen=True)
class Fisher:
    """M = E[g g'], one per cluster of x, as factors; g is the gradient of the log-probability of
    drawn labels.

    KL(p(x) || p(x + v)) = v' M v / 2 on average and to second order, summed over the position and
    those after it, where labels are the model's own (Martens 2014, "New insights on the natural
    gradient", 1412.1193, section 5).
    """

    hook: Hook
    factors: Tensor  # [C, R, D]: M of cluster c is factors[c].T @ factors[c]
    centroids: Tensor  # [C, D] a position belongs to the nearest one
    sample: Tensor  # [N, D] activations minus their mean, by which the spread is measured
    mean: Tensor  # [D]
    own: float  # E[((x - mean) . g)^2], every position with its own g
    tokens: int  # positions that M comes from
    note: str = ""  # what had to be done for want of tokens, a sentence

    @property
    def spread(self) -> float:
        """E[(x - mean)' M (x - mean)], each x with the M of its cluster."""
        cluster = nearest(self.sample + self.mean, self.centroids)
        return float(quadratic(self.sample, self.factors, cluster)) / len(self.sample)

    def rotated(self, seed: int) -> "Fisher":
        """The metric through one random rotation: a null that keeps the spectrum, no direction."""
        d = len(self.mean)
        q, r = torch.linalg.qr(
            torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        )
        rotation = q * r.diagonal().sign()  # uniform over rotations
        return replace(self, factors=self.factors @ rotation.to(self.factors))

    def isotropic(self) -> "Fisher":
        """The metric without any direction: the identity for every cluster."""
        identity = torch.eye(len(self.mean)).to(self.factors)
        return replace(self, factors=identity.expand(len(self.factors), -1, -1))

    def tensors(self, source: ActivationSource) -> Mapping[str, Tensor]:
        """What a loss term on `source` needs. Raises `ValueError` for another hook or width."""
        if (self.hook, len(self.mean)) != (source.hook, source.d_in):
            raise ValueError(
                f"the Fisher metric belongs to {self.hook.name}, width {len(self.mean)}, and "
                "these activations to "
                f"{source.hook.name}, width {source.d_in}; harvest it at their hook"
            )
        scalars = {"spread": self.spread, "own": self.own}
        return {"factors": self.factors, "centroids": self.centroids} | {
            name: self.mean.new_tensor(value) for name, value in scalars.items()
        }


def fisher(
    lm: LanguageModel,
    windows: Iterable[Windows],
    mean: Tensor,
    *,
    rows: int,
    seed: int = 0,
    clusters: int = 1,
    rank: int = 0,
    labels: Labels = "model",
) -> Fisher:
    """The Fisher metric of `lm` at its hook from `rows` kept positions of `windows`, streamed,
    summed in float64.

    `mean [D]` of the activations: the metric's unit is what the mean in place of x would cost.
    `clusters`: k-means on the first 16,384 activations, one M each; an M is shrunk towards that of
    all positions by D pseudo-positions, and with fewer positions than dimensions that one towards a
    multiple of the identity, which `note` says. `rank` above 0: only that many leading directions
    of M, for wide models. A pure function of its arguments.

    Raises `ValueError` for a model without a gradient at its hook, for quantised weights, for
    windows that were not read at the model's hook, and for too few positions.
    """
    for name, value, least in (("rows", rows, 1), ("clusters", clusters, 1), ("rank", rank, 0)):
        Kind(least).check(name, value)
    if rank > lm.d_in:
        raise ValueError(f"rank is {rank}; activations have {lm.d_in} dimensions (0: all of them)")
    _refuse_quantised(lm)
    scores = _scores(lm, windows, rows, torch.Generator(mean.device).manual_seed(seed), labels)
    head = _head(scores)
    x = torch.cat([x for x, _ in head])
    g = torch.cat([g for _, g in head])
    if len(x) < clusters:
        raise ValueError(
            f"{clusters} clusters of {len(x)} activations; give at least as many rows as clusters"
        )
    centroids = _k_means(x, clusters, seed)
    # [R, D]
    basis = (
        _leading(g, rank) if rank else torch.eye(len(mean), dtype=torch.float64, device=g.device)
    )
    sums = torch.zeros(clusters, len(basis), len(basis), dtype=torch.float64, device=g.device)
    counts, own = torch.zeros(clusters, dtype=torch.float64, device=g.device), 0.0
    for x_piece, g_piece in chain([(x, g)], scores):
        own += float(((x_piece - mean) * g_piece).sum(1).double().square().sum())
        cluster = nearest(x_piece, centroids)
        counts += cluster.bincount(minlength=clusters)
        for c in cluster.unique().tolist():
            rotated = g_piece[cluster == c].double() @ basis.T  # [n, R]
            sums[c].addmm_(rotated.T, rotated)
    tokens = int(counts.sum())
    if not sums.any():
        raise ValueError(
            f"predictions do not depend on the activations at {lm.hook.name}: all gradients are 0"
        )
    moments, note = _shrunk(sums, counts)
    factors = torch.stack([_root(moment) @ basis for moment in moments]).to(mean)
    return Fisher(lm.hook, factors, centroids, x - mean, mean, own / tokens, tokens, note)


def mean_ablation(
    lm: LanguageModel, windows: Iterable[Windows], mean: Tensor, *, rows: int
) -> float:
    """KL(clean || `mean [D]` at every kept position), nats a kept position, over `rows` of them."""
    total, n = 0.0, 0
    with torch.no_grad():
        for part in _pieces(windows):
            x, state = lm.capture(part.tokens)
            changed = torch.where(part.keep.unsqueeze(2), mean.to(x), x)
            divergence = kl_of_logits(lm.resume(x, state), lm.resume(changed, state))
            total += float(divergence[part.keep].double().sum())
            n += int(part.keep.sum())
            if n >= rows:
                break
    if not total > 0:
        raise ValueError(
            f"predictions do not change when the activations at {lm.hook.name} are replaced by "
            "their mean"
        )
    return total / n


def kl_of_logits(clean: Tensor, changed: Tensor) -> Tensor:
    """KL(clean || changed) of logits `[..., V]` -> `[...]`, nats, in float32 or better."""
    return kl(precise(clean).log_softmax(-1), precise(changed).log_softmax(-1))


def score(
    lm: LanguageModel, windows: Windows, generator: torch.Generator, labels: Labels = "model"
) -> Tensor:
    """g `[B, T, D]`: gradient at the hook of the log-probability, summed over kept positions, of
    one label for each.

    A position's g includes its effect on later predictions. Labels are drawn from the model's own
    predictions, or are the tokens that follow (then the last position of a window has none). Raises
    `ValueError` as `fisher` does.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "gradients at the hook are asked for under torch.inference_mode; leave that out "
            "around this call"
        )
    captured, state = lm.capture(windows.tokens)
    # rounding apart
    if windows.x.shape != captured.shape or (windows.x - captured).norm() > 0.05 * captured.norm():
        raise ValueError(
            f"these windows hold other activations, of shape {tuple(windows.x.shape)}, than the "
            f"model has at {lm.hook.name}, "
            f"of shape {tuple(captured.shape)}; read both at one hook"
        )
    tokens = windows.tokens[:, 1:]
    own = lambda log_p: torch.multinomial(  # noqa: E731
        log_p.exp().flatten(0, 1), 1, generator=generator
    ).view_as(windows.keep)
    return label_gradient(
        lm, windows.x, state, own if labels == "model" else lambda _: tokens, windows.keep
    )


def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """The nearest of `centroids [C, D]` for each of x `[N, D]` -> `[N]`."""
    if len(centroids) == 1:
        return torch.zeros(len(x), dtype=torch.long, device=x.device)
    return (centroids.square().sum(1) - 2 * x @ centroids.T).argmin(1)


def quadratic(e: Tensor, factors: Tensor, cluster: Tensor) -> Tensor:
    """sum over rows of e' M e, e `[N, D]` each with the M of its `cluster [N]`; a scalar >= 0."""
    if len(factors) == 1:
        return (e @ factors[0].T).square().sum()
    counts = cluster.bincount(minlength=len(factors)).tolist()
    parts = e[cluster.argsort(stable=True)].split(counts)
    return torch.stack(
        [(part @ F.T).square().sum() for part, F in zip(parts, factors, strict=True) if len(part)]
    ).sum()


def _refuse_quantised(lm: LanguageModel) -> None:
    if getattr(getattr(lm, "model", None), "is_quantized", False):
        raise ValueError(
            "the model's weights are quantised, and gradients through them are not its own; load "
            "it unquantised"
        )


def _pieces(windows: Iterable[Windows]) -> Iterator[Windows]:
    """The same windows, about `PIECE` positions at a time."""
    for batch in windows:
        fields = (batch.x, batch.tokens, batch.doc, batch.pos, batch.keep)
        n = max(1, PIECE // batch.x.shape[1])
        yield from (
            Windows(*part) for part in zip(*(field.split(n) for field in fields), strict=True)
        )


def _scores(
    lm: LanguageModel,
    windows: Iterable[Windows],
    rows: int,
    generator: torch.Generator,
    labels: Labels,
) -> Iterator[tuple[Tensor, Tensor]]:
    """x and g `[N, D]` of kept positions, `rows` in all or as many as there are."""
    left = rows
    for part in _pieces(windows):
        g = score(lm, part, generator, labels)[part.keep][:left]
        x = part.flat.to(g)[:left]
        left -= len(x)
        if len(x):
            yield x, g
        if left == 0:
            return


def _head(scores: Iterator[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """The first `SAMPLE` rows, or all. Raises `ValueError` when there are none."""
    head, n = [], 0
    for x, g in scores:
        head.append((x, g))
        n += len(x)
        if n >= SAMPLE:
            break
    if not head:
        raise ValueError("no window has a kept position: there is nothing to take gradients at")
    return head


def _k_means(x: Tensor, clusters: int, seed: int) -> Tensor:
    """Centroids `[C, D]`."""
    if clusters == 1:
        return x.mean(0, keepdim=True)
    from sklearn.cluster import KMeans

    means: Any = KMeans(clusters, n_init=3, random_state=seed)  # pyright: ignore[reportArgumentType]
    return torch.from_numpy(means.fit(x.cpu().numpy()).cluster_centers_).to(x)


def _leading(g: Tensor, rank: int) -> Tensor:
    """The `rank` directions `[R, D]` in which gradients are largest, orthonormal."""
    g = g.double()
    return torch.linalg.eigh(g.T @ g).eigenvectors[:, -rank:].T


def _shrunk(sums: Tensor, counts: Tensor) -> tuple[Tensor, str]:
    """Mean moments `[C, R, R]` of sums over `counts [C]` positions, shrunk where positions are few,
    and what was done.
    """
    r, n = sums.shape[1], int(counts.sum())
    whole, note = sums.sum(0) / n, ""
    if n < r:
        identity = torch.eye(r).to(whole) * whole.trace() / r
        whole = (n * whole + r * identity) / (n + r)
        note = (
            f"the Fisher metric comes from {n} positions in {r} dimensions and is shrunk towards "
            f"a multiple of the identity with weight {r / (n + r):.2f}; raise rows"
        )
    if len(sums) == 1:
        return whole.unsqueeze(0), note
    return (sums + r * whole) / (counts + r).view(-1, 1, 1), note


def _root(moment: Tensor) -> Tensor:
    """A symmetric F with F' F = moment."""
    values, vectors = torch.linalg.eigh((moment + moment.T) / 2)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T
