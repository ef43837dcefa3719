"""Temporal evaluation on worlds of persistent features: which latents stand for slow features, and
do they follow them.

What a latent stands for is its type: the true direction of largest |cosine|, where that exceeds .5;
the two signals of a circle of positions are one plane, because a circle can be tiled at any angle.
A latent that fires on at most one token in a thousand is dead and has no type. The slow block is
the first block named "slow" of the dictionary or, where it has none, as many first latents as there
are slow features.

Every purity stands beside `purity_sorted`, the same after sorting latents by how much their codes
persist: where features are recovered at all, sorting finds the slow ones, so only what exceeds it
speaks for a temporal loss. It cannot raise `slow_recall`. Hidden states of a permuted corpus are
permuted with its tokens: `hidden_correlation` then is what it is in order, and smoothing loses.

Legend: L latents | F true features | P position signals | S sequences | T positions | D width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.evals.common.matching import cosines, match
from saelab.evals.common.world import (
    process_of,
    undefined,
    world_evaluation,
    world_of,
    world_score,
)
from saelab.evals.result import Result
from saelab.evals.temporal.codes import (
    LAGS,
    column_correlation,
    explained_share,
    gain_terms,
    lag_correlation,
    position_share,
)
from saelab.evals.temporal.metrics import ON_WORLDS
from saelab.ground.held_out import HeldOut
from saelab.sae.smoothing import smooth
from saelab.synth.worlds.s3_persistence import Persistence
from saelab.types import Dictionary, Score, structure_of

SEQUENCES = 512
ALIVE = 1e-3  # share of tokens on which a latent must fire
TYPED = 0.5  # |cosine| above which a latent stands for a direction
RECALLED = 0.8  # |cosine| above which a feature counts as found
POSITIONAL = 0.25  # share of variance above which a latent is one of the position
READ = 0.5  # R^2 above which a position signal can be read
SILENT = "the slow block never fires"
DECAYS = (0.6, 0.8, 0.9)  # of exponential smoothing


@dataclass(frozen=True)
class TemporalData:
    """Held-out sequences with the states behind them."""

    process: Persistence
    x: Tensor  # [S, T, D]
    hidden: Tensor  # [S, T, F], 1 where the state is on
    signals: Tensor  # [S, T, P] position signals that x carries


@dataclass(frozen=True)
class Types:
    """What every latent stands for."""

    direction: Tensor  # [L] number of a feature, F and above: a circle of positions; -1: none
    cosine: Tensor  # [L] |cosine| with the nearest direction
    alive: Tensor  # [L] bool


def prepare(held: HeldOut) -> TemporalData:
    """512 held-out sequences. Raises `TypeError` for a world without persistent features."""
    lack = (
        "has no persistent features; the temporal evaluation reads s3, s3_hard, s3_null, s3c, "
        "s3c_hard and s3c_null"
    )
    process = process_of(held, Persistence, lack)
    sample = process.sequences(SEQUENCES, world_of(held).generator("temporal"))
    assert sample.labels is not None
    return TemporalData(process, sample.x, sample.labels, sample.x @ process.planes.T)


@torch.no_grad()
def measure(dictionary: Dictionary, data: TemporalData) -> Result:
    """Scores of one dictionary; `ON_WORLDS` says what each means.

    `purity_sorted` is of as many latents as there are slow features, the most persistent ones,
    after those of the position (> 25 % of variance) and dead ones are moved last.
    `hidden_correlation` is of matched live slow latents (|cosine| > .5). `mcc_slow`, `mcc_fast`: 0
    for a feature that is matched with no latent.
    """
    process = data.process
    z = dictionary.encode(data.x).float()  # [S, T, L]
    types = latent_types(dictionary.directions, process, (z > 0).float().mean((0, 1)) > ALIVE)
    n_slow = len(process.groups["slow"])
    block = slow_block(dictionary, n_slow)
    last = ~types.alive | (position_share(z) > POSITIONAL)
    persistence = lag_correlation(z)  # [L]
    order = torch.where(last, persistence - 3, persistence).argsort(descending=True, stable=True)
    matched = match(dictionary.directions.float(), process.features)
    n = z[..., 0].numel()
    groups = process.groups
    scores = {
        "slow_recall": world_score(recall(types, groups["slow"]), n),
        "fast_recall": world_score(recall(types, groups["fast"]), n),
        "purity": purity(types, block, groups, n),
        "purity_sorted": purity(types, order[:n_slow], groups, n),
        "occupancy": world_score(
            len(_standing_for(types, block, groups["slow"]).unique()) / n_slow, n
        ),
        "position_features_in_slow_block": _position_features(z[..., block], data.signals),
        **_hidden_correlations(z[..., types.alive], dictionary.directions[types.alive], data),
        "learned_gain": _learned_gain(z[..., block], dictionary.directions[block], data.x),
        "mcc_slow": world_score(float(matched.cosine[groups["slow"]].mean()), n),
        "mcc_fast": world_score(float(matched.cosine[groups["fast"]].mean()), n),
    }
    return Result(scores, details={"slow_block": counts(types, block, groups)})


def slow_block(dictionary: Dictionary, n_slow: int) -> Tensor:
    """Latents `[<= L]` of the block "slow", else the first `n_slow`, or all of fewer."""
    first = range(min(n_slow, len(dictionary.directions)))
    block = structure_of(dictionary).blocks.get("slow", first)
    return torch.tensor(list(block), dtype=torch.long)


def latent_types(directions: Tensor, process: Persistence, alive: Tensor) -> Types:
    """What latents with decoder rows `[L, D]` stand for. `alive [L]` bool."""
    directions = directions.float()
    similarity = cosines(directions, process.features).abs()  # [L, F]
    if len(process.planes):
        circles = cosines(directions, process.planes).unflatten(1, (-1, 2)).norm(dim=2)  # [L, P/2]
        similarity = torch.cat([similarity, circles], 1)
    cosine, nearest = similarity.max(1)
    return Types(torch.where((cosine > TYPED) & alive, nearest, -1), cosine, alive)


def recall(types: Types, group: range) -> float:
    """Share of a group's features that a live latent finds, in [0, 1]."""
    near = types.direction[types.cosine > RECALLED]
    return len(near[_within(near, group)].unique()) / len(group)


def purity(types: Types, latents: Tensor, groups: Mapping[str, range], n: int) -> Score:
    """slow / (slow + fast) among `latents`, in [0, 1]; undefined where they stand for neither."""
    slow, fast = (len(_standing_for(types, latents, groups[name])) for name in ("slow", "fast"))
    share = slow / (slow + fast) if slow + fast else math.nan
    return world_score(share, n, "none of these latents stands for a slow or a fast feature")


def counts(types: Types, latents: Tensor, groups: Mapping[str, range]) -> dict[str, int]:
    """How many of `latents` stand for slow or fast features, the position, nothing, or are dead."""
    direction, alive = types.direction[latents], types.alive[latents]
    n_features = sum(len(group) for group in groups.values())
    by_group = {name: int(_within(direction, group).sum()) for name, group in groups.items()}
    return by_group | {
        "position": int((direction >= n_features).sum()),
        "mixed": int((alive & (direction < 0)).sum()),
        "dead": int((~alive).sum()),
    }


def _within(direction: Tensor, group: range) -> Tensor:
    return (direction >= group.start) & (direction < group.stop)


def _standing_for(types: Types, latents: Tensor, group: range) -> Tensor:
    """The features of `group` that `latents` stand for, one entry a latent."""
    direction = types.direction[latents]
    return direction[_within(direction, group)]


def _position_features(z: Tensor, signals: Tensor) -> Score:
    """How many of the signals `[S, T, P]` can be read linearly from codes `[S, T, l]`."""
    if signals.shape[2] == 0:
        return undefined("this world has no position features")
    share = explained_share(z.flatten(0, 1), signals.flatten(0, 1))
    return world_score(float((share > READ).sum()), signals[..., 0].numel())


def _learned_gain(z: Tensor, directions: Tensor, x: Tensor) -> Score:
    """The gain by which what codes `[S, T, l]` reconstruct best predicts `x [S, T, D]` less its
    mean at the position: mean over lags.
    """
    guess, y = z @ directions.float(), x - x.mean(0)
    terms = [gain_terms(guess[:, :-d], guess[:, d:], y[:, :-d], y[:, d:]) for d in LAGS]
    gains = [float(match.sum() / power.sum()) for match, power in terms]
    return world_score(sum(gains) / len(gains), x[..., 0].numel(), SILENT)


def _hidden_correlations(z: Tensor, directions: Tensor, data: TemporalData) -> dict[str, Score]:
    """Correlation of matched slow latents with the hidden states, at single positions and smoothed.

    `z [S, T, l]` and `directions [l, D]` of live latents only: a dead one must not take a live
    one's feature.
    """
    matched = match(directions.float(), data.process.features)
    pairs = [
        (int(matched.latent[f]), f)
        for f in data.process.groups["slow"]
        if matched.cosine[f] > TYPED
    ]
    if not pairs:
        none = undefined("no live latent is matched to a slow feature with |cosine| > .5")
        return {"hidden_correlation": none, "hidden_correlation_smoothed": none}
    codes, hidden = z[..., [j for j, _ in pairs]], data.hidden[..., [f for _, f in pairs]]
    plain = column_correlation(codes, hidden).mean()
    smoothed = torch.stack(
        [column_correlation(smooth(codes, decay), hidden).mean() for decay in DECAYS]
    ).max()
    n = hidden[..., 0].numel()
    return {
        "hidden_correlation": world_score(float(plain), n),
        "hidden_correlation_smoothed": world_score(float(smoothed), n),
    }


EVALUATION = world_evaluation(
    ON_WORLDS,
    prepare,
    measure,
    what="persistent features",
    reads=(Persistence,),
    title="Features that persist",
)
