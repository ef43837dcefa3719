"""Ground truth: does a dictionary find the features that a world is made of? Reads every world.

Definitions are those of SynthSAEBench (arXiv 2602.14687) as sae-lens computes them, so that the
numbers can be compared with published ones. With c the cosine of decoder direction and true
feature, `[L, F]`:

    mcc                 one-to-one matching with the largest sum of |c|; mean |c| of the min(L, F)
                        matched pairs
    uniqueness          distinct argmax_f |c| over all latents, divided by L
    precision, recall,  a latent is a detector of its argmax_f |c|: it says yes where z != 0, the
                        truth is yes where the
    f1                  feature's code is > 0. 0 where undefined; per latent, then the mean over all
                        L, dead ones too
    explained_variance  1 - E|x - x_hat|^2 / (E|x|^2 - |E x|^2)
    shrinkage           mean |x_hat| / |x| where |x| > 1e-6; 1 is no shrinkage
    l0                  mean number of latents with z != 0
    dead                share of latents that never fire in the sample

Legend: L latents | F true features | N activations | D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saelab.evals.common.matching import Matched, cosines, match
from saelab.evals.common.reading import CODES_AT_ONCE
from saelab.evals.common.world import undefined, world_of, world_score
from saelab.evals.result import Result
from saelab.figures import Axis, Heat, Points, Scatter
from saelab.ground.held_out import HeldOut
from saelab.synth.world import SparseProcess, SparseSample
from saelab.types import Dictionary, Score

ACTIVATIONS = 20_480  # held out; whole windows in worlds with order
PICTURE = 256  # features and latents in the report's matrix, at most
WIDE = 12  # ratio of the largest and the smallest frequency from which their axis is logarithmic
MIN_NORM = 1e-6  # of x, for a ratio of norms
CONSTANT = 1e-12  # share of E|x|^2 below which a variance is rounding


@dataclass(frozen=True)
class TruthData:
    """Held-out activations of a world, and which of its features are active in them."""

    features: Tensor  # [F, D]
    groups: Mapping[str, range]  # of features
    x: Tensor  # [N, D]
    active: Tensor | SparseSample  # [N, F] bool, or a list where that would be too large

    def active_rows(self, start: int, stop: int) -> Tensor:
        """Which features are active in activations start ... stop - 1, `[stop - start, F]` bool."""
        if isinstance(self.active, Tensor):
            return self.active[start:stop]
        return self.active.active(start, stop)

    @property
    def frequency(self) -> Tensor:
        """Share of the activations that each feature is active in, `[F]`."""
        if isinstance(self.active, Tensor):
            return self.active.double().mean(0)
        return self.active.feature.bincount(minlength=self.active.n_features).double() / len(self.x)


def prepare(held: HeldOut) -> TruthData:
    """Draw the held-out activations. Every world can be read."""
    world = world_of(held)
    process = world.process
    if isinstance(process, SparseProcess):
        listed = process.draw_sparse(ACTIVATIONS, world.generator("truth"))
        return TruthData(process.features, process.groups, listed.x, listed)
    sample = world.sample(ACTIVATIONS, "truth").flat
    return TruthData(process.features, process.groups, sample.x, sample.codes > 0)


def measure(dictionary: Dictionary, data: TruthData) -> Result:
    """Every score of a dictionary against the true features. Deterministic.

    Raises `ValueError` where the dictionary has another width than the world, or its directions are
    not finite.
    """
    with torch.no_grad():
        totals = Totals(dictionary.directions, data.features)
        step = max(1, CODES_AT_ONCE // max(len(dictionary.directions), len(data.features)))
        for start in range(0, len(data.x), step):
            x = data.x[start : start + step]
            z = dictionary.encode(x.to(dictionary.directions.device))
            totals.add(data.active_rows(start, start + len(x)), x, z, dictionary.decode(z))
        details = _details(totals, data)
        figures = (_cosine_figure(details, data), _recovery_figure(details, data))
        return Result(totals.scores(), figures=figures, details=details)


class Totals:
    """Sums over activations from which every score follows, so that they can come in parts."""

    def __init__(self, directions: Tensor, features: Tensor):
        directions, features = directions.detach().float().cpu(), features.float()
        # needs the most memory, so before anything is kept
        self.matched: Matched = match(directions, features)
        self.similarity = cosines(directions, features).abs_()  # [L, F]
        # [L] the feature that each latent is judged as a detector of
        self.detects = self.similarity.argmax(1)
        self.n = self.n_ratios = 0
        # [L] each
        self.fired, self.present, self.hits = torch.zeros(3, len(directions), dtype=torch.long)
        self.sum_x = torch.zeros(features.shape[1], dtype=torch.double)  # [D]
        self.square, self.residual, self.ratio = 0.0, 0.0, 0.0

    def add(self, active: Tensor, x: Tensor, z: Tensor, x_hat: Tensor) -> None:
        """More activations: active features `[N, F]`, x and x_hat `[N, D]`, codes z `[N, L]`."""
        fires, truth = (z != 0).cpu(), active[:, self.detects]  # [N, L] both
        x, x_hat = x.cpu().double(), x_hat.cpu().double()
        self.n += len(x)
        self.fired += fires.sum(0)
        self.present += truth.sum(0)
        self.hits += (fires & truth).sum(0)
        self.sum_x += x.sum(0)
        self.square += float(x.square().sum())
        self.residual += float((x - x_hat).square().sum())
        norm = x.norm(dim=1)
        counts = norm > MIN_NORM
        self.ratio += float((x_hat.norm(dim=1)[counts] / norm[counts]).sum())
        self.n_ratios += int(counts.sum())

    def scores(self) -> dict[str, Score]:
        """Every score of the activations so far; at least one must have come."""
        assert self.n, "no activations"
        hits, fired, present = self.hits.double(), self.fired.double(), self.present.double()
        # [L] both; 0 where undefined
        precision, recall = hits / fired.clamp_min(1), hits / present.clamp_min(1)
        f1 = 2 * hits / (fired + present).clamp_min(1)  # [L] the harmonic mean of both
        matched = self.matched.cosine[self.matched.latent >= 0]  # [min(L, F)]
        latents = len(self.fired)
        return {
            "mcc": world_score(float(matched.double().mean()), self.n),
            "precision": world_score(float(precision.mean()), self.n),
            "recall": world_score(float(recall.mean()), self.n),
            "f1": world_score(float(f1.mean()), self.n),
            "uniqueness": world_score(len(self.detects.unique()) / latents, self.n),
            "explained_variance": self._explained_variance(),
            "dead": world_score(float((self.fired == 0).double().mean()), self.n),
            "shrinkage": self._shrinkage(),
            "l0": world_score(float(fired.sum()) / self.n, self.n),
        }

    def _explained_variance(self) -> Score:
        variance = self.square / self.n - float((self.sum_x / self.n).square().sum())
        if variance <= CONSTANT * self.square / self.n:
            return undefined("the activations are constant: there is no variance to explain")
        return world_score(1 - self.residual / self.n / variance, self.n)

    def _shrinkage(self) -> Score:
        if not self.n_ratios:
            return undefined("every activation is zero: there is no norm to compare with")
        return world_score(self.ratio / self.n_ratios, self.n_ratios)


def _details(totals: Totals, data: TruthData) -> dict[str, Any]:
    """What the report draws: cosines per cent, matched latents in the order of their features, then
    the others.

    The matrix shows the first `PICTURE` features and as many latents; the lists have all features.
    """
    mine = totals.matched.latent[:PICTURE]
    mine = mine[mine >= 0]
    others = torch.ones(len(totals.detects), dtype=torch.bool)
    others[totals.matched.latent[totals.matched.latent >= 0]] = False
    rest = others.nonzero().squeeze(1)
    # next to the latents of the same feature
    rest = rest[totals.detects[rest].argsort(stable=True)]
    order = torch.cat([mine, rest])[:PICTURE]
    return {
        "cosine": (100 * totals.similarity[order, :PICTURE]).round().int().tolist(),
        "order": order.tolist(),
        "matched": [round(value, 4) for value in totals.matched.cosine.tolist()],
        "frequency": [round(value, 6) for value in data.frequency.tolist()],
        "groups": {name: [group.start, group.stop] for name, group in data.groups.items()},
    }


def _cosine_figure(details: Mapping[str, Any], data: TruthData) -> Heat:
    """|Cosine| of latents (rows, sorted) and features (columns, by group)."""
    columns = min(len(data.features), PICTURE)
    return Heat(
        "cosines",
        "Cosine of every latent and every feature",
        "Latents stand in the order of the features they match, those left over below: a clean "
        "diagonal is full recovery, two strong cells in a row are a latent that mixes two "
        "features.",
        rows=(),
        columns=(),
        values=[[value / 100 for value in row] for row in details["cosine"]],
        low=0.0,
        high=1.0,
        groups={
            name: (group.start, min(group.stop, columns))
            for name, group in data.groups.items()
            if group.start < min(group.stop, columns)
        },
        row_label=f"{len(details['cosine'])} latents, sorted",
        column_label=f"{columns} features",
    )


def _recovery_figure(details: Mapping[str, Any], data: TruthData) -> Scatter:
    """How well each feature is matched, against how often it is active."""
    group = [0] * len(data.features)
    for number, members in enumerate(data.groups.values()):
        group[members.start : members.stop] = [number] * len(members)
    frequency = [value for value in details["frequency"] if value > 0]
    wide = bool(frequency) and max(frequency) > WIDE * min(frequency)
    return Scatter(
        "recovery",
        "Recovery against frequency",
        "A dot is a true feature. A feature that no latent was left for stands at 0.",
        x=Axis("share of activations it is in", log=wide, low=None if wide else 0.0),
        y=Axis("|cosine| with its latent", low=0.0, high=1.0),
        points=(Points("features", details["frequency"], details["matched"], group=group),),
        groups=tuple(data.groups),
    )
