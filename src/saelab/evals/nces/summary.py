"""What the NCES of single latents says of a whole dictionary: scores, and a row per latent.

Intervals are over documents and over which latents were drawn to stand for the rest.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from saelab.evals.common.interventions import rank_correlation
from saelab.evals.nces.effects import Measured, Sums, nces
from saelab.evals.nces.figures import ABLATION, figures_of, live_sample, mass_table
from saelab.evals.result import Result
from saelab.stats import Resampling
from saelab.types import Score

GROUPS = 64  # documents are resampled in at most this many groups where all latents are summed
N_BOOT = 200  # resamples there
NOTHING = Score(None, reason="no latent is active on 30 tokens")
OVER_LATENTS = "no interval: a statistic over the measured latents"


def summarise(
    measured: Measured, doc: Tensor, types: Sequence[str], facts: Mapping[str, Any]
) -> Result:
    """Scores of a dictionary on positions of the documents `doc [N]`; `metrics.METRICS` says what
    each of them is.

    Dead and rare latents are in none but `nces_excluded`. Means over live latents are weighted by
    activity, the share of tokens on which a latent is active; medians and shares are not.
    Agreement and rank correlations are over the measured latents, the other scores of the estimate
    over all live ones.
    """
    latents, by_type = measured.latents, measured.by_type
    details = {
        "eval": "nces",
        "facts": facts,
        "agreement": {},
        "latents": [],
        "estimates": estimates_of(measured),
    }
    n = len(latents.directions)
    share = 1 - len(latents.live) / n
    excluded = Score(share, n=n, reason="no interval: a count over the whole text")
    scores = {"nces_excluded": excluded}
    if not by_type:
        return Result(scores | dict.fromkeys(_keys(types), NOTHING), details=details)
    bounds = {name: contexts.intervals() for name, contexts in by_type.items()}
    resamplings = {name: _resampled(c.sums(doc), measured.weight) for name, c in by_type.items()}
    for name in by_type:
        scores |= _of_type(name, resamplings[name], measured, bounds[name][0])
    if ABLATION in by_type:
        scores["causal_mass"] = resamplings[ABLATION].score(_summed(measured.activity))
    agreement = {
        f"{a} {b}": rank_correlation(by_type[a].overall.nces, by_type[b].overall.nces)
        for a, b in combinations(by_type, 2)
    }
    scores["nces_agreement"] = _mean_agreement(agreement.values(), len(measured.latent))
    scores |= _estimated(measured)
    return Result(
        scores,
        tables=mass_table(measured),
        figures=figures_of(measured),
        details=details | {"agreement": agreement, "latents": _rows(measured, bounds)},
    )


def _keys(types: Sequence[str]) -> list[str]:
    """Keys of all scores but `nces_excluded`."""
    ends = ("", "_median", "_share_positive")
    return [
        *(f"nces_{name}{end}" for name in types for end in ends),
        "causal_mass",
        "nces_agreement",
        "nces_fisher",
        "causal_mass_fisher",
        "nces_fisher_spearman",
    ]


def _mean_agreement(correlations: Iterable[float | None], n: int) -> Score:
    """Mean over the pairs of types whose ranks over the n measured latents can be compared."""
    values = [value for value in correlations if value is not None]
    if not values:
        return Score(None, n=n, reason="fewer than 2 types, or too few latents, to compare")
    return Score(sum(values) / len(values), n=n, reason=OVER_LATENTS)


def _of_type(
    name: str, resampling: Resampling, measured: Measured, low: Tensor
) -> dict[str, Score]:
    """The scores of one type; `low [m]` of the latents' intervals."""
    weight = measured.weight
    undefined = "no measured latent has an effect or a control's"
    weighted = _over_latents(_mean, measured.activity.double())
    median = _over_latents(_median, weight.double())
    share = float((weight * (low > 0)).sum() / weight.sum())
    return {
        f"nces_{name}": resampling.score(weighted, undefined=undefined),
        f"nces_{name}_median": resampling.score(median, undefined=undefined),
        f"nces_{name}_share_positive": Score(share, n=len(weight), reason=OVER_LATENTS),
    }


def _over_latents(
    statistic: Callable[[Tensor, Tensor], Tensor], weight: Tensor
) -> Callable[[Tensor], Tensor]:
    """A statistic of sums `[R, 4 m]`: NCES of each latent, then over the latents that have one in
    the resample.
    """

    def over_latents(sums: Tensor) -> Tensor:
        own, control, _, times = sums.unflatten(1, (4, -1)).unbind(1)
        value = nces(own, control)  # [R, m]
        defined = value.isfinite()
        # 2: sorted behind all values
        return statistic(value.where(defined, 2.0), weight * times * defined)

    return over_latents


def _resampled(by_document: Sums, weight: Tensor, n_boot: int = 1000) -> Resampling:
    """Own effects, controls' effects and positions of m latents by document, `[C, 3 m]` together,
    and behind them how often each latent counts `[m]`.

    Once in the sample. In a resample, latents that stand for others (weight above 1) were drawn,
    and are drawn again with replacement; those that stand for themselves are in every one.
    """
    sums = torch.cat([by_document.own, by_document.control, by_document.count], 1)
    resampling = Resampling(sums[sums.any(1)], n_boot=n_boot)  # documents with a context
    times = torch.ones(len(resampling.samples), len(weight), dtype=torch.double)
    (drawn,) = (weight > 1).nonzero(as_tuple=True)
    if len(drawn):
        again = torch.randint(
            len(drawn), (len(times), len(drawn)), generator=torch.Generator().manual_seed(1)
        )
        times[:, drawn] = torch.zeros_like(again, dtype=torch.double).scatter_add_(
            1, again, torch.ones_like(times[:, drawn])
        )
    return resampling.beside(torch.ones_like(times[:1]), times)


def _mean(value: Tensor, weight: Tensor) -> Tensor:
    return (value * weight).sum(1) / weight.sum(1)


def _median(value: Tensor, weight: Tensor) -> Tensor:
    """Weighted lower median of each row; NaN where nothing has weight."""
    value, order = value.sort(dim=1)
    reached = weight.gather(1, order).cumsum(1)
    first = (reached < reached[:, -1:] / 2).sum(1, keepdim=True).clamp(max=value.shape[1] - 1)
    return value.gather(1, first).squeeze(1).where(reached[:, -1] > 0, torch.nan)


def _summed(frequency: Tensor) -> Callable[[Tensor], Tensor]:
    """Sum over latents of frequency times mean effect, nats per token, of sums `[R, 4 m]`."""

    def summed(sums: Tensor) -> Tensor:
        own, _, count, times = sums.unflatten(1, (4, -1)).unbind(1)
        return (frequency.double() * times * (own / count).nan_to_num()).sum(1)

    return summed


def _estimated(measured: Measured) -> dict[str, Score]:
    """Scores from the estimate, over all live latents, documents resampled in groups."""
    live, guess = measured.latents.live, measured.estimate
    by_document = torch.stack([guess.own, guess.control, guess.count])[:, :, live]  # [3, C, live]
    group = torch.arange(by_document.shape[1]) % GROUPS
    sums = torch.zeros(3, int(group.max()) + 1, len(live), dtype=torch.double)
    sums.index_add_(1, group, by_document)
    resampling = _resampled(Sums(*sums), torch.ones(len(live)), N_BOOT)
    activity = measured.latents.codes.frequency[live]
    fisher = resampling.score(
        _over_latents(_mean, activity.double()), undefined="every estimated effect is 0"
    )
    value = None
    if ABLATION in measured.by_type:
        ablation = measured.by_type[ABLATION].overall
        value = rank_correlation(guess.effect[measured.latent], ablation.effect)
    few = "zero ablation was not measured, or on too few latents"
    reason = few if value is None else OVER_LATENTS
    return {
        "nces_fisher": fisher,
        "causal_mass_fisher": resampling.score(_summed(activity)),
        "nces_fisher_spearman": Score(value, n=len(measured.latent), reason=reason),
    }


def _rows(measured: Measured, bounds: Mapping[str, tuple[Tensor, Tensor]]) -> list[dict[str, Any]]:
    """One row per measured latent."""
    codes, latent = measured.latents.codes, measured.latent
    effects = {
        name: rows_of(
            effect=contexts.overall.effect,
            control=contexts.overall.against,
            nces=contexts.overall.nces,
            low=bounds[name][0],
            high=bounds[name][1],
        )
        for name, contexts in measured.by_type.items()
    }
    return rows_of(
        latent=latent,
        weight=measured.weight,
        frequency=codes.frequency[latent],
        mean_code=codes.mean_active[latent],
        estimate=measured.estimate.effect[latent],
        **effects,
    )


def rows_of(**columns: Tensor | list[Any]) -> list[dict[str, Any]]:
    """One row of plain values per latent, from columns of one length."""
    values = [c.tolist() if isinstance(c, Tensor) else c for c in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def estimates_of(measured: Measured) -> dict[str, list[float]]:
    """Of all live latents: number, activity, mean code, estimated effect and control."""
    sample = live_sample(measured)
    return {
        "latent": measured.latents.live.tolist(),
        "frequency": sample.frequency.tolist(),
        "mean_code": sample.mean_code.tolist(),
        "effect": sample.effect.tolist(),
        "control": sample.control.tolist(),
    }
