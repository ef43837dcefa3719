"""The numbers of SynthSAEBench (arXiv 2602.14687) -> a `FeatureProcess`; definitions as in sae-lens
6.54.

Feature f has the firing probability p_f = p_min + (p_max - p_min) (r^-e - F^-e) / (1 - F^-e), r = f
+ 1 its rank. In the forest a child's is compensated for what its parent and its siblings take, p_f
/ p_parent (1 + sum of the siblings' p / p_parent), at most 1. That is first order: where the
children of a parent would fire more often than it does, they fire less often than p_f.

Legend: F features | D width | R rank of the copula.
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from saelab.numbers import Kind
from saelab.store import content_id, read_tensors, write_tensors
from saelab.synth.directions import feature_generator, unit_rows
from saelab.synth.entry import check_kind
from saelab.synth.features import FeatureProcess, Forest

OWN_SHARE = 0.01  # least variance of a feature's own noise
# multiply-adds of the orthogonalisation from which its result is kept on disk: ten seconds or more
CACHED_FROM = 1e12
LOWEST = {  # of the numbers that have no highest
    0: ("depth", "correlation", "sd_mean", "sd_sd", "bias", "apart_steps", "apart_rate", "model"),
    0.01: ("exponent", "mean_first", "mean_last"),
    1: ("features", "roots", "branching", "rank"),
    2: ("d",),
}
REFERENCE_SEEDS = {"directions": 0, "sd": 1, "copula": 4}  # what sae-lens adds to a model's seed


@dataclass(frozen=True)
class Directions:
    """What the directions are made of: drawn, then pushed apart."""

    features: int
    d: int
    bias: float  # norm
    steps: int
    rate: float
    seed: int
    # 0: `seed` draws; else the model that sae-lens builds from this seed, whatever `seed` is
    model: int


def zipf(n: int, *, exponent: float, p_max: float, p_min: float) -> Tensor:
    """Firing probabilities `[n]` that fall with the rank as a power, from p_max to p_min.

    Raises `ValueError` for a probability outside of (0, 1], and for p_min above p_max.
    """
    for name, value in {"p_max": p_max, "p_min": p_min}.items():
        if not 0 < value <= 1 or p_min > p_max:
            raise ValueError(
                f"{name} is {value:g}; probabilities are above 0, at most 1, and p_min "
                f"({p_min:g}) at most p_max"
            )
    power = torch.arange(1, n + 1, dtype=torch.double) ** -exponent
    if n > 1:
        power = (power - power[-1]) / (1 - power[-1])
    return p_min + (p_max - p_min) * power


def compensated(p: Tensor, forest: Forest) -> Tensor:
    """Firing probabilities `[F]` before the forest silences children, so that they fire about as
    often as p says after.
    """
    share = forest.children(p) / p[: forest.parents].unsqueeze(1)  # [parents, C]
    raised = share * (1 + share.sum(1, keepdim=True) - share)
    return torch.cat([p[: forest.roots], raised.flatten().clamp(max=1), p[forest.size :]])


def copula(n: int, rank: int, scale: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Shared parts `[n, rank]` and the standard deviation of own noises `[n]`: together every
    feature has variance 1.
    """
    shared = scale * torch.randn(n, rank, generator=generator)
    square = shared.square().sum(1)
    shared = shared * ((1 - OWN_SHARE) / square.clamp_min(1e-12)).sqrt().clamp(max=1).unsqueeze(1)
    return shared, (1 - shared.square().sum(1)).sqrt()


def orthogonalised(rows: Tensor, *, steps: int, rate: float) -> Tensor:
    """Unit rows `[F, D]` pushed apart by Adam on sum_(i != j) (e_i . e_j)^2 + F sum_i (|e_i|^2 -
    1)^2.

    With G = E^T E, a [D, D] matrix, the gradient is 4 (E G - |e|^2 e + F (|e|^2 - 1) e): no cosine
    of two features is made, which is F / D times cheaper than going through all pairs.
    """
    rows = unit_rows(rows)
    optimizer = torch.optim.Adam([rows], lr=rate)
    for _ in range(steps):
        square = rows.square().sum(1, keepdim=True)
        rows.grad = 4 * torch.addcmul(
            rows @ (rows.T @ rows), rows, len(rows) * (square - 1) - square
        )
        optimizer.step()
    return unit_rows(rows.detach())


def directions(recipe: Directions) -> tuple[Tensor, Tensor]:
    """Features `[F, D]` and the bias `[D]`. Large ones are kept in `cache_folder()` and read
    again.
    """
    path = cache_folder() / "synthsaebench" / f"{content_id(asdict(recipe))}.safetensors"
    large = recipe.steps * 2 * recipe.features * recipe.d**2 >= CACHED_FROM
    if large and path.exists():
        kept = read_tensors(path)
        return kept["features"], kept["bias"]
    generator = _generator("directions", recipe.seed, recipe.model)
    rows = torch.randn(recipe.features, recipe.d, generator=generator)
    bias = recipe.bias * unit_rows(torch.randn(recipe.d, generator=generator))
    features = orthogonalised(rows, steps=recipe.steps, rate=recipe.rate)
    if large:
        write_tensors(path, {"features": features, "bias": bias}, asdict(recipe))
    return features, bias


def cache_folder() -> Path:
    """Where saelab keeps what is costly to make again: `saelab` in $XDG_CACHE_HOME, or in
    ~/.cache.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saelab"


def synthsaebench(
    seed: int,
    *,
    features: float = 2_048,
    d: float = 256,
    roots: float = 16,
    branching: float = 4,
    depth: float = 3,
    exponent: float = 0.5,
    p_max: float = 0.4,
    p_min: float = 5e-4,
    rank: float = 25,
    correlation: float = 0.1,
    mean_first: float = 5,
    mean_last: float = 4,
    sd_mean: float = 0.5,
    sd_sd: float = 0.5,
    bias: float = 0.5,
    apart_steps: float = 100,
    apart_rate: float = 3e-4,
    scaled: float = 1,
    model: float = 0,
) -> FeatureProcess:
    """The process. Probabilities and means fall from feature 0 to the last; deviations are
    |N(sd_mean, sd_sd)|.

    `correlation`: standard deviation of the copula's shared parts; `apart_*`: steps and rate that
    push directions apart; `scaled` 0: a parent only switches its children (the benchmark's first
    version); `model`: not 0: the features that sae-lens builds from this seed, the same for every
    seed here (42: the published benchmark). Raises `ValueError` for numbers that make no such
    process.
    """
    numbers = dict(locals())
    for low, names in LOWEST.items():
        check_kind(Kind(low), **{name: numbers[name] for name in names})
    chances = zipf(round(features), exponent=exponent, p_max=p_max, p_min=p_min)
    Kind(0, 1, whole=True).check("scaled", scaled, "children are scaled by their parent")
    if model and model == seed:
        raise ValueError(
            f"model is {model:g}, as the seed: the SAE would start at its features; take another "
            "seed"
        )
    n, forest = round(features), Forest(round(roots), round(branching), round(depth))
    if forest.size > n:
        raise ValueError(
            f"features is {n}; a forest of {forest.roots} roots to depth {forest.depth} has "
            f"{forest.size} already"
        )
    number = round(model)
    shared, own_sd = copula(n, round(rank), correlation, _generator("copula", seed, number))
    offset = -torch.special.ndtri(compensated(chances, forest)).float() / own_sd
    sd = (sd_mean + sd_sd * torch.randn(n, generator=_generator("sd", seed, number))).abs()
    rows, centre = directions(
        Directions(n, round(d), bias, round(apart_steps), apart_rate, 0 if number else seed, number)
    )
    slope, mean = shared / own_sd.unsqueeze(1), torch.linspace(mean_first, mean_last, n)
    return FeatureProcess(rows, centre, slope, offset, mean, sd, forest, bool(scaled))


def _generator(part: str, seed: int, model: int) -> torch.Generator:
    """The randomness of a part; a model's is the one that sae-lens draws it from."""
    if model:
        return torch.Generator().manual_seed(model + REFERENCE_SEEDS[part])
    return feature_generator(f"synthsaebench {part}", seed)
