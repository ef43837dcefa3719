"""Do effects tell latents that a model reads from latents that it ignores? On worlds where it is
known which is which.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.effects.intervene import TYPES, control_covariance, sampled_gradients
from saelab.effects.reactions import Text
from saelab.evals.common.matching import match
from saelab.evals.common.world import undefined, world_score
from saelab.evals.nces.effects import (
    Budget,
    Contexts,
    Estimate,
    Latents,
    estimate,
    exact,
    nces,
    rank_correlation,
)
from saelab.evals.nces.figures import figures_of, mass_table
from saelab.evals.nces.summary import estimates_of
from saelab.evals.result import Metric, Result
from saelab.types import LanguageModel, Score

MATCHED = 0.8  # |cosine| above which a latent has the label of its feature
BUDGET = Budget(TYPES, contexts=128, draws=4, following=0)
# causal latents are alike: ranking them takes more
RANKED = Budget(("zero",), contexts=1_000, draws=1, following=0)
LABEL_SAMPLES = 4  # gradients per activation
# what needs no effect, and what each is
BASELINES = {
    "activity": "share of activations on which it is active",
    "norm": "mean code, decoder norm folded in",
    "probe": "largest correlation with the model's predictions",
}
OTHERS = ("fisher", *BASELINES)  # candidates beside the types
CHANCE = "Chance that a causal latent has the larger"
METRICS = (
    Metric(
        "nces_labelled",
        "Labelled latents",
        "neither",
        "Number of latents that are matched to one feature, so that it is known whether the model "
        "reads them.",
    ),
    *(
        Metric(
            f"nces_auroc_{name}",
            f"AUROC, {name}",
            "higher",
            f"{CHANCE} NCES than an inert one, by the intervention {name!r}; .5 is guessing.",
        )
        for name in BUDGET.types
    ),
    Metric(
        "nces_auroc_fisher",
        "AUROC, fisher",
        "higher",
        f"{CHANCE} estimated NCES than an inert one; .5 is guessing.",
    ),
    *(
        Metric(
            f"nces_auroc_{name}",
            f"AUROC, {name}",
            "neither",
            f"{CHANCE} {words} than an inert one, without any intervention; .5 is guessing.",
        )
        for name, words in BASELINES.items()
    ),
    Metric(
        "nces_spearman",
        "Effect ranks",
        "higher",
        "Rank correlation of estimated and measured effects within causal latents; from -1 to 1.",
    ),
)


@dataclass(frozen=True)
class Known:
    """Held-out activations of a world, each a window by itself, with gradients and true
    features.
    """

    text: Text
    gradients: Tensor  # [K, N, D]
    covariance: Tensor  # [D, D]
    log_p: Tensor  # [N, V] of the model
    features: Tensor  # [F, D], the causal ones first
    n_causal: int


def known(lm: LanguageModel, x: Tensor, log_p: Tensor, features: Tensor, n_causal: int) -> Known:
    """Read each activation `[N, D]` as a window of one position: in these worlds positions are
    independent.
    """
    each = x.unsqueeze(1)  # [N, 1, D]
    text = Text(
        lm,
        lambda rows, length: (each[rows, :length], None),
        torch.arange(len(x)),
        torch.zeros(len(x)).long(),
        1,
    )
    generator = torch.Generator().manual_seed(0)
    gradients = [
        sampled_gradients(lm, each, None, generator).squeeze(1) for _ in range(LABEL_SAMPLES)
    ]
    return Known(text, torch.stack(gradients), control_covariance(x), log_p, features, n_causal)


def detection(latents: Latents, data: Known, z: Tensor, *, budget: Budget = BUDGET) -> Result:
    """AUROC of causal against inert latents by what is known of each, and how well the estimate
    ranks causal latents.

    The result has these scores, pictures of the effects, and in its details the effects of each
    latent with a label and the estimates of all live ones.

    Labels: one-to-one matches of latents and features with |cosine| > .8, among latents active on
    at least 30 activations. Candidates: `nces_auroc_<type>` and `_fisher` (NCES), `_activity`
    (share of activations), `_norm` (mean code where active, decoder norm folded in), `_probe`
    (largest |correlation| of the code `z [N, L]` with the log-probability of any token).
    `nces_spearman`: rank correlation of the estimated effect and the exact one of zero ablation
    within causal latents. `nces_labelled`: how many latents have a label.
    """
    chosen, causal = _labelled(latents, data)
    labelled = {"nces_labelled": world_score(len(chosen), len(chosen))}
    guess = estimate(
        latents, data.gradients, data.covariance, torch.zeros(latents.codes.n, dtype=torch.long)
    )
    if not 0 < int(causal.sum()) < len(causal):
        reason = (
            f"{int(causal.sum())} causal and {int((~causal).sum())} inert latents are matched; it "
            "takes both"
        )
        names = (*(f"auroc_{name}" for name in (*budget.types, *OTHERS)), "spearman")
        keys = [f"nces_{name}" for name in names]
        scores = labelled | {key: undefined(reason) for key in keys}
        return _result(scores, latents, guess, chosen, causal, {})
    found = exact(data.text, latents, chosen, data.covariance, budget)
    by = {name: contexts.nces for name, contexts in found.items()}
    by["fisher"] = nces(guess.mean_effect, guess.mean_control)[chosen]
    by["activity"], by["norm"] = latents.codes.frequency[chosen], latents.codes.mean_active[chosen]
    by["probe"] = largest_correlation(z[:, chosen], data.log_p)
    scores = {f"nces_auroc_{name}": _auroc(name, value, causal) for name, value in by.items()}
    ranked = exact(data.text, latents, chosen[causal], data.covariance, RANKED)["zero"]
    scores["nces_spearman"] = _spearman(guess.mean_effect[chosen][causal], ranked.effect)
    return _result(labelled | scores, latents, guess, chosen, causal, found)


def _result(
    scores: dict[str, Score],
    latents: Latents,
    guess: Estimate,
    chosen: Tensor,
    causal: Tensor,
    found: Mapping[str, Contexts],
) -> Result:
    """The scores with what was measured of the `chosen [m]` latents, by type of change."""
    rows = []
    for i, (j, label) in enumerate(zip(chosen.tolist(), causal.tolist(), strict=True)):
        row = {"latent": j, "causal": label, "frequency": float(latents.codes.frequency[j])}
        row["mean_code"] = float(latents.codes.mean_active[j])
        effects = {
            name: {"effect": float(c.effect[i]), "control": float(c.against[i])}
            for name, c in found.items()
        }
        rows.append(row | effects)
    return Result(
        scores,
        tables=mass_table(latents, guess),
        figures=figures_of(latents, guess, found, chosen, inert=~causal),
        details={"latents": rows, "estimates": estimates_of(latents, guess)},
    )


def largest_correlation(z: Tensor, log_p: Tensor) -> Tensor:
    """Largest |correlation| `[m]` of each code `[N, m]` with the log-probability of any token `[N,
    V]`.
    """
    z, log_p = z - z.mean(0), log_p - log_p.mean(0)
    norms = z.norm(dim=0).unsqueeze(1) * log_p.norm(dim=0)
    return (z.T @ log_p / norms.clamp_min(1e-12)).abs().max(1).values


def _labelled(latents: Latents, data: Known) -> tuple[Tensor, Tensor]:
    """Latents with a label `[m]`, ascending, and whether it is causal."""
    matched = match(latents.directions, data.features)
    live = torch.isin(matched.latent, latents.live)
    feature = (live & (matched.cosine > MATCHED)).nonzero().squeeze(1)
    latent, order = matched.latent[feature].sort()
    return latent, feature[order] < data.n_causal


def _auroc(name: str, value: Tensor, causal: Tensor) -> Score:
    """Chance that a causal latent has the larger value than an inert one, ties counting half."""
    from scipy.stats import rankdata

    if not value.isfinite().all():
        return undefined("a latent's effect and its control's are both 0")
    n, n_inert = int(causal.sum()), int((~causal).sum())
    ranks = torch.as_tensor(rankdata(value.numpy()))
    auroc = (float(ranks[causal].sum()) - n * (n + 1) / 2) / (n * n_inert)
    return world_score(auroc, len(causal))


def _spearman(a: Tensor, b: Tensor) -> Score:
    value = rank_correlation(a, b)
    if value is None:
        return undefined(
            f"{len(a)} causal latents are matched, too few for a rank correlation, or their "
            "effects are equal"
        )
    return world_score(value, len(a))
