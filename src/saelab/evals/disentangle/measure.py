"""Disentanglement on a world of shared factors: has every value of every factor a latent of its
own?

Scores are of codes averaged over a sequence, on a balanced factorial set, in which the factors that
agree in training are independent: a latent for "A and B" cannot pass for either. See `formulas` for
the formulas and their sources.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.evals.common.matching import cosines
from saelab.evals.common.world import process_of, world_of, world_score
from saelab.evals.disentangle.formulas import (
    Items,
    dci_d,
    factor_vae,
    items,
    mig,
    sap,
    value_information,
)
from saelab.evals.result import Result
from saelab.ground.held_out import HeldOut
from saelab.synth.worlds.s4_factors import VALUES, Factors
from saelab.types import Dictionary

N_ITEMS = 6_000  # sequences
CHUNK = 500  # sequences encoded at a time
COMPOSITE = 0.5  # cosine from which a latent counts as standing for a value
LIVE = 1e-3  # least share of tokens that a live latent is active on
DCI_FLOOR = 0.15  # DCI-D of shuffled items


@dataclass(frozen=True)
class DisentangleData:
    """A balanced factorial set of sequences."""

    x: Tensor  # [N, T, D]
    items: Items  # of the N sequences
    values_a: Tensor  # [V, D] directions of the values of A
    values_b: Tensor  # [V, D]


def prepare(held: HeldOut) -> DisentangleData:
    """6,000 held-out balanced sequences. Raises `TypeError` for a world without factors."""
    world = world_of(held)
    process = process_of(held, Factors, "has no factors; disentangle reads s4 and s4_null")
    sample = process.balanced(N_ITEMS, world.generator("disentangle"))
    assert sample.labels is not None
    a, b = (process.features[list(process.groups[name])] for name in ("a", "b"))
    choices = world.generator("disentangle choices")
    return DisentangleData(sample.x, items(sample.labels, VALUES, process.chance, choices), a, b)


@torch.no_grad()
def measure(dictionary: Dictionary, data: DisentangleData) -> Result:
    """Scores of one SAE, by their names in the tables.

    `mig`, `sap` (value-level, 1 = one-hot code), `mig_ab` (values of A and B only), `dci_d` (floor
    .15, .41 for the true features), `factor_vae`; `composites`: live latents with cosine > .5 to
    both a value of A and a value of B, `composite_share`: among those with either.
    """
    codes, live = _pooled(dictionary, data.x)
    n = len(codes)
    information = value_information(codes, data.items)
    gaps = mig(information, data.items)
    near_a = cosines(dictionary.directions, data.values_a).amax(1) > COMPOSITE
    near_b = cosines(dictionary.directions, data.values_b).amax(1) > COMPOSITE
    both, either = int((near_a & near_b & live).sum()), int(((near_a | near_b) & live).sum())
    share = both / either if either else math.nan
    certainty, accuracy = dci_d(codes, information[0], data.items), factor_vae(codes, data.items)
    scores = {
        "mig": world_score(float(gaps.mean()), n),
        "mig_ab": world_score(float(gaps[: 2 * data.items.n_values].mean()), n),
        "sap": world_score(float(sap(codes, data.items).mean()), n),
        "dci_d": world_score(certainty, n, "no latent tells anything of a value"),
        "factor_vae": world_score(accuracy, n, "no latent is active on 2 % of the sequences"),
        "composites": world_score(both, n),
        "composite_share": world_score(share, n, "no live latent is near a value of A or B"),
    }
    return Result(scores, details={"mig_by_value": gaps.tolist(), "dci_d_floor": DCI_FLOOR})


def _pooled(dictionary: Dictionary, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean codes `[N, L]` of each sequence of `x [N, T, D]`, and which latents are live, `[L]`."""
    codes, active = [], torch.zeros(len(dictionary.directions))
    for part in x.split(CHUNK):
        z = dictionary.encode(part.flatten(0, 1))  # [n * T, L]
        active += (z != 0).sum(0).cpu()
        codes.append(z.unflatten(0, part.shape[:2]).mean(1).float().cpu())
    return torch.cat(codes), active > LIVE * x.shape[0] * x.shape[1]
