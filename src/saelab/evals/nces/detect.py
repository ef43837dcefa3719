"""Do effects tell latents that a model reads from latents that it ignores? On worlds where it is
known which is which.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saelab.effects.intervene import TYPES
from saelab.effects.reactions import Text
from saelab.evals.common.interventions import Latents, rank_correlation
from saelab.evals.common.matching import match
from saelab.evals.common.world import undefined, world_score
from saelab.evals.nces.effects import Budget, Measured, effects_by_type, estimate
from saelab.evals.nces.figures import figures_of, mass_table
from saelab.evals.nces.summary import estimates_of, rows_of
from saelab.evals.result import Metric, Result
from saelab.synth.worlds.s1_causal import Causal, Gated
from saelab.types import Better, Score

MATCHED = 0.8  # |cosine| above which a latent has the label of its feature
BUDGET = Budget(TYPES, contexts=128, draws=4, following=0)
# causal latents are alike: ranking them takes more
RANKED = Budget(("zero",), contexts=1_000, draws=1, following=0)
WITHOUT = "than an inert one, without any intervention"
# what may tell causal latents from inert ones: what of it is compared, and which way is better
CANDIDATES: dict[str, tuple[str, Better]] = {
    **{name: (f"NCES than an inert one, by the intervention {name!r}", "higher") for name in TYPES},
    "fisher": ("estimated NCES than an inert one", "higher"),
    "activity": (f"share of activations on which it is active {WITHOUT}", "neither"),
    "norm": (f"mean code, decoder norm folded in {WITHOUT}", "neither"),
    "probe": (f"largest correlation with the model's predictions {WITHOUT}", "neither"),
}
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
            better,
            f"Chance that a causal latent has the larger {what}; .5 is guessing.",
        )
        for name, (what, better) in CANDIDATES.items()
    ),
    Metric(
        "nces_spearman",
        "Effect ranks",
        "higher",
        "Rank correlation of estimated and measured effects within causal latents; from -1 to 1.",
    ),
)


@dataclass(frozen=True)
class CausalData:
    """Held-out activations of a world, each a window by itself, and what the model behind the world
    says on them.
    """

    process: Causal | Gated
    x: Tensor  # [N, D]
    log_p: Tensor  # [N, V] of the model on x
    kl_ablated: float  # KL of the reference ablation, nats
    text: Text
    gradients: Tensor  # [K, N, D] of labels sampled from the model
    covariance: Tensor  # [D, D] of the control


def detection(latents: Latents, data: CausalData, z: Tensor) -> Result:
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
    chosen, causal = _labelled(latents, data.process)
    n, n_causal = len(chosen), int(causal.sum())
    scores, codes = {"nces_labelled": world_score(n, n)}, latents.codes
    guess = estimate(
        latents, data.gradients, data.covariance, torch.zeros(codes.n, dtype=torch.long)
    )
    measured = Measured(latents, guess, {}, chosen, torch.ones(n))
    if not 0 < n_causal < n:
        reason = f"{n_causal} causal and {n - n_causal} inert latents are matched; it takes both"
        keys = [*(f"nces_auroc_{name}" for name in CANDIDATES), "nces_spearman"]
        return _result(scores | dict.fromkeys(keys, undefined(reason)), measured, causal)
    measured = replace(
        measured, by_type=effects_by_type(data.text, latents, chosen, data.covariance, BUDGET)
    )
    values = {name: contexts.overall.nces for name, contexts in measured.by_type.items()} | {
        "fisher": guess.nces[chosen],
        "activity": codes.frequency[chosen],
        "norm": codes.mean_active[chosen],
        "probe": largest_correlation(z[:, chosen], data.log_p),
    }
    scores |= {f"nces_auroc_{name}": _auroc(values[name], causal) for name in CANDIDATES}
    ranked = effects_by_type(data.text, latents, chosen[causal], data.covariance, RANKED)
    effect = ranked["zero"].overall.effect
    scores["nces_spearman"] = _spearman(guess.effect[chosen][causal], effect)
    return _result(scores, measured, causal)


def _result(scores: Mapping[str, Score], measured: Measured, causal: Tensor) -> Result:
    """The scores with what was measured of the latents with a label, by type of change."""
    codes, latent = measured.latents.codes, measured.latent
    effects = {
        name: rows_of(effect=contexts.overall.effect, control=contexts.overall.against)
        for name, contexts in measured.by_type.items()
    }
    rows = rows_of(
        latent=latent,
        causal=causal,
        frequency=codes.frequency[latent],
        mean_code=codes.mean_active[latent],
        **effects,
    )
    return Result(
        scores,
        tables=mass_table(measured),
        figures=figures_of(measured, inert=~causal),
        details={"latents": rows, "estimates": estimates_of(measured)},
    )


def largest_correlation(z: Tensor, log_p: Tensor) -> Tensor:
    """Largest |correlation| `[m]` of each code `[N, m]` with the log-probability of any token `[N,
    V]`.
    """
    z, log_p = z - z.mean(0), log_p - log_p.mean(0)
    norms = z.norm(dim=0).unsqueeze(1) * log_p.norm(dim=0)
    return (z.T @ log_p / norms.clamp_min(1e-12)).abs().max(1).values


def _labelled(latents: Latents, process: Causal | Gated) -> tuple[Tensor, Tensor]:
    """Latents with a label `[m]`, ascending, and whether it is causal."""
    features = torch.cat([process.features[process.causal], process.features[process.inert]])
    matched = match(latents.directions, features)
    live = torch.isin(matched.latent, latents.live)
    feature = (live & (matched.cosine > MATCHED)).nonzero().squeeze(1)
    latent, order = matched.latent[feature].sort()
    return latent, feature[order] < len(process.causal)


def _auroc(value: Tensor, causal: Tensor) -> Score:
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
