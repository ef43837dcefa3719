"""How well single latents stand for single values of known factors. Every formula reads codes of
items with known values.

A factor is categorical, so its literal MIG is about 0 for a perfect code: with one latent per value
the best and the second best latent tell equally much. All scores but two are therefore taken per
*value*, a binary target, and divided by what a perfect one-hot code scores. Latents are chosen on
one half of the items and scored on the other, and no score depends on the scale of a latent or on
latents that never fire.

Legend: N items | L latents | C factors | V values per factor | Y = C * V binary targets, value v of
factor c at c * V + v.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

BINS = 5  # zero, and the quarters of the non-zero codes
FEW = 20  # latents active on fewer items only have the bins zero and non-zero
SHUFFLES = 5  # chance level of the mutual information
SMALL = 1e-12  # within a logarithm
# latents, inverse L1 strength, and every how many items of the first half
DCI_LATENTS, DCI_C, DCI_STEP = 80, 0.1, 2
# FactorVAE: votes per factor, items per vote, least share of items active
VOTES, VOTE_ITEMS, ALIVE = 300, 64, 0.02


@dataclass(frozen=True)
class Items:
    """Items with known values, and the scores' random choices: made once, equal for every SAE."""

    values: Tensor  # [N, C] values, V = absent
    targets: Tensor  # [N, Y] 1 where the item has the value
    chance: float  # probability of each value of a factor
    shuffled: Tensor  # [SHUFFLES, N // 2] orders of half of the items
    # [C, VOTES + VOTES // 2, VOTE_ITEMS] items with one value of factor c; the first VOTES decide
    votes: Tensor
    # [C, VOTES + VOTES // 2] in [0, 1): which of several equally constant latents gets the vote
    ties: Tensor

    @property
    def n_values(self) -> int:
        """V."""
        return self.targets.shape[1] // self.values.shape[1]


def items(values: Tensor, n_values: int, chance: float, generator: torch.Generator) -> Items:
    """Items with values `[N, C]` in 0, ..., n_values (absent), each value with probability
    `chance`.

    Raises `ValueError` where a factor has a value with fewer than `VOTE_ITEMS` items: no score
    would mean anything.
    """
    n, n_factors = values.shape
    targets = one_hot(values, n_values + 1)[..., :n_values].flatten(1).float()  # [N, Y]
    if (rare := int(targets.sum(0).min())) < VOTE_ITEMS:
        raise ValueError(
            f"a value has {rare} of {n:,} items; every value needs at least {VOTE_ITEMS}, take "
            "more items"
        )
    n_votes = VOTES + VOTES // 2
    drawn = torch.randint(n_values, (n_factors, n_votes), generator=generator)
    drawn = drawn + torch.arange(n_factors)[:, None] * n_values
    rows = [
        torch.multinomial(targets[:, y], VOTE_ITEMS, generator=generator) for y in drawn.flatten()
    ]
    return Items(
        values,
        targets,
        chance,
        torch.stack([torch.randperm(n // 2, generator=generator) for _ in range(SHUFFLES)]),
        torch.stack(rows).view(n_factors, n_votes, VOTE_ITEMS),
        torch.rand(n_factors, n_votes, generator=generator),
    )


def halves(n: int) -> tuple[slice, slice]:
    """The items that choose latents, and those that score the choice."""
    return slice(0, n // 2), slice(n // 2, 2 * (n // 2))


def entropy(p: float) -> float:
    """Entropy of a coin, nats."""
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def gap_ceiling(chance: float) -> float:
    """Value-level MIG of a perfect one-hot code: 1 - I(y_v; y_w) / H(y_v), since values of a factor
    exclude each other.
    """
    return (1 - chance) * entropy(chance / (1 - chance)) / entropy(chance)


def correlation_ceiling(chance: float) -> float:
    """Value-level SAP of a perfect one-hot code: 1 - corr(y_v, y_w)^2."""
    return 1 - (chance / (1 - chance)) ** 2


def bins(codes: Tensor, edges_from: Tensor) -> Tensor:
    """Bin `[N, L]` of every code: 0 if zero, 1 to 4 by quarters of non-zero `edges_from [M, L]`."""
    active = edges_from != 0
    count = active.sum(0)  # [L]
    ordered = edges_from.masked_fill(~active, math.inf).sort(0).values
    bin_of = (codes != 0).long()
    for quarter in (0.25, 0.5, 0.75):
        place = quarter * (count - 1).clamp_min(0)
        low, high = ordered.gather(0, torch.stack([place.floor(), place.ceil()]).long())
        edge = torch.where(count < FEW, math.inf, low + (high - low) * place.frac())
        bin_of += (codes > edge) & (codes != 0)
    return bin_of


def mutual_information(bin_of: Tensor, targets: Tensor) -> Tensor:
    """I(bin of latent; binary target) `[L, Y]`, nats, from bins `[N, L]` and targets `[N, Y]`."""
    n, n_latents = bin_of.shape
    with_target = one_hot(bin_of, BINS).flatten(1).to(targets)  # [N, L * BINS]
    share = with_target.sum(0).view(n_latents, BINS, 1) / n
    both = (with_target.T @ targets).view(n_latents, BINS, -1) / n
    p = targets.mean(0)  # [Y]
    cells = ((both, share * p), (share - both, share * (1 - p)))
    return sum((joint * ((joint + SMALL) / (alone + SMALL)).log()).sum(1) for joint, alone in cells)  # type: ignore[return-value]


def value_information(codes: Tensor, of: Items) -> tuple[Tensor, Tensor]:
    """Mutual information `[L, Y]` of latents and values on the two halves, less its mean over
    shuffled items, at least 0.
    """
    chosen_by, scored_by = halves(len(codes))

    def above_chance(half: slice) -> Tensor:
        targets = of.targets[half]
        # [N/2, (1 + SHUFFLES) * Y]
        together = torch.cat([targets, *(targets[order] for order in of.shuffled)], 1)
        information = mutual_information(bins(codes[half], codes[chosen_by]), together)
        information = information.unflatten(1, (1 + SHUFFLES, -1))
        return (information[:, 0] - information[:, 1:].mean(1)).clamp_min(0)

    return above_chance(chosen_by), above_chance(scored_by)


def _gap(choose_by: Tensor, score_by: Tensor) -> Tensor:
    """Best minus second best `[Y]`: latents chosen by `choose_by [L, Y]`, scored by `score_by`."""
    spare = (0, 0, 0, 2)  # two latents that know nothing, for dictionaries of fewer than two
    best = pad(choose_by, spare).topk(2, 0).indices
    first, second = pad(score_by, spare).gather(0, best)
    return first - second


def mig(information: tuple[Tensor, Tensor], of: Items) -> Tensor:
    """Mutual-information gap of every value `[Y]` (Chen et al. 2018, per value): 1 = a one-hot
    code, 0 = no latent leads.

    Best minus second best latent's information, over the value's entropy, over the ceiling of a
    perfect code.
    """
    return _gap(*information) / entropy(of.chance) / gap_ceiling(of.chance)


def sap(codes: Tensor, of: Items) -> Tensor:
    """Separated attribute predictability of every value `[Y]` (Kumar et al. 2018), as a gap of R^2,
    over the ceiling.
    """
    chosen_by, scored_by = (
        _correlation(codes[part], of.targets[part]).square() for part in halves(len(codes))
    )
    return _gap(chosen_by, scored_by) / correlation_ceiling(of.chance)


def _correlation(codes: Tensor, targets: Tensor) -> Tensor:
    """Pearson correlation `[L, Y]`; 0 of a latent that does not vary."""
    z, y = codes.double() - codes.double().mean(0), targets.double() - targets.double().mean(0)
    norms = z.norm(dim=0).unsqueeze(1) * y.norm(dim=0)
    return torch.where(norms > 0, (z.T @ y) / norms, 0).float()


def dci_d(codes: Tensor, information: Tensor, of: Items) -> float:
    """Disentanglement of DCI (Eastwood & Williams 2018) in [0, 1]: does a latent matter for one
    factor only?

    Importance = |weights| of L1 logistic regressions of all values on the 80 latents that tell most
    (`information [L, Y]`), summed over a factor's values. D = sum_j share_j (1 - entropy of latent
    j over factors / log C). Weights of noise put shuffled items near .15, not 0, and cost a code
    with latents for more than the factors: s4's true code has .41. NaN where no latent has any
    weight.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # a quarter of the items: the fits take nearly all of the time
    train = slice(0, len(codes) // 2, DCI_STEP)
    spread = codes[train].double().std(0)
    told = torch.where(spread > 0, information.amax(1), -1)
    chosen = told.topk(min(DCI_LATENTS, int((spread > 0).sum()))).indices.sort().values
    if len(chosen) == 0:
        return math.nan
    z, y = (codes[train].double()[:, chosen] / spread[chosen]).numpy(), of.targets[train].numpy()
    model = LogisticRegression(C=DCI_C, l1_ratio=1, solver="liblinear", max_iter=60, random_state=0)
    with warnings.catch_warnings():
        # 60 rounds: the large weights, which decide, have settled
        warnings.simplefilter("ignore", ConvergenceWarning)
        rows = [torch.from_numpy(model.fit(z, target).coef_[0]) for target in y.T]
    weights = torch.stack(rows)  # [Y, l]
    importance = weights.abs().unflatten(0, (-1, of.n_values)).sum(1)  # [C, l]
    total = importance.sum(0)
    p = importance / total.clamp_min(SMALL)
    certainty = 1 + (p * (p + SMALL).log()).sum(0) / math.log(len(p))
    return float((total * certainty).sum() / total.sum())


def factor_vae(codes: Tensor, of: Items) -> float:
    """FactorVAE score (Kim & Mnih 2018) in [0, 1]: accuracy of a majority vote on which factor was
    held fixed.

    Each vote is the latent that varies least, against its overall variance, among items that share
    one value. Not a gate: the raw activations of an entangled world score .7. NaN where no latent
    varies and is active on 2 % of the items.
    """
    varies = (codes != codes[0]).any(0)
    kept = codes[:, varies & ((codes != 0).float().mean(0) >= ALIVE)].double()
    if kept.shape[1] == 0:
        return math.nan
    overall = kept.var(0)
    counts = []
    for votes, ties in zip(of.votes, of.ties, strict=True):
        ratio = kept[votes.flatten()].view(*votes.shape, -1).var(1) / overall  # [votes, l]
        least = ratio <= ratio.amin(1, keepdim=True) + 1e-9
        number = (ties * least.sum(1)).long() + 1  # which of the least varying ones, from 1
        winner = (least.cumsum(1) == number.unsqueeze(1)).float().argmax(1)
        both = [won.bincount(minlength=kept.shape[1]) for won in winner.split([VOTES, VOTES // 2])]
        counts.append(torch.stack(both))
    deciding, scored = torch.stack(counts, -1)  # [l, C] each
    return float(scored.gather(1, deciding.argmax(1, keepdim=True)).sum() / scored.sum())
