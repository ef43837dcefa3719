"""Causal dictionaries: errors cost what they do to the model's predictions.

Hypothesis: an SAE that pays for the effect of its error on the output spends latents on what the model reads, not on what
has variance. Loss: that of the base plus weight * e' M e / E[(x - mean)' M (x - mean)], M the Fisher metric at the hook;
and exact KL through the model as the comparison. Data: activations with the model behind them.
"""

from dataclasses import replace

from saelab.terms.base import Objective, Term, Variant
from saelab.terms.causal import Null, ablation_need, fisher_need, kl, metric, sampled
from saelab.terms.schedules import after, linear
from saelab.types import Number
from saelab.variants.baselines import batch_topk
from saelab.variants.frontier import frontier


def with_metric(
    base: Variant,
    weight: Number,
    *,
    rows: float = 20_000,
    clusters: float = 1,
    rank: float = 0,
    null: Null = "none",
    shuffle: float = 0,
    data_labels: float = 0,
) -> Variant:
    """`base` with the Fisher metric term; at weight 0 it is `base` itself."""
    if weight == 0:
        return base
    labels = "data" if data_labels else "model"
    need = fisher_need(rows=round(rows), clusters=round(clusters), rank=round(rank), labels=labels, null=null)
    term = Term("metric", metric(need.name, shuffle=bool(shuffle)), weight)
    return replace(base, objective=Objective(*base.objective.terms, term), needs=(*base.needs, need))


def with_kl(base: Variant, weight: Number) -> Variant:
    """`base` with the KL of the model that reads x_hat, in every step with a weight above 0; at weight 0 `base` itself."""
    if weight == 0:
        return base
    need = ablation_need()
    objective = Objective(*base.objective.terms, Term("kl", kl(need.name), weight))
    return replace(base, objective=objective, needs=(*base.needs, need), batch="windows", lm=True)


def causal(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    weight: float = 4,
    ramp: float = 0.2,
    clusters: float = 1,
    rotate: float = 0,
    isotropic: float = 0,
    shuffle: float = 0,
    per_token: float = 0,
    data_labels: float = 0,
    rows: float = 20_000,
    rank: float = 0,
    finetune: float = 0,
    finetune_weight: float = 4,
    aux: float = 1 / 32,
    anneal: float = 1.0,
) -> Variant:
    """`batch_topk` whose error also pays by the Fisher metric; at `weight` 0 it is `batch_topk`, bit for bit.

    `ramp`: share of training in which the weight rises from 0. `clusters`: one metric per cluster of x. `rows`: activations
    that it comes from; `rank` above 0: its leading directions only. `finetune`: last share of training in which exact KL
    joins with `finetune_weight` and the learning rate starts anew.

    For ablations: `rotate` and `isotropic` 1 are metrics that know nothing, `shuffle` 1 gives every x the metric of another
    one's cluster, `data_labels` 1 takes labels from the text instead of the model, `per_token` 1 draws one gradient for
    every position in every step instead of a mean metric. Raises `ValueError` for numbers out of range.
    """
    _check_causal(weight, ramp, clusters, rows, rank, finetune)
    _check_switches(rotate=rotate, isotropic=isotropic, shuffle=shuffle, per_token=per_token, data_labels=data_labels)
    if rotate + isotropic + per_token > 1:
        raise ValueError("rotate, isotropic and per_token each replace the metric; switch on one of them at most")
    base = batch_topk(d_in, n_latents, l0=l0, aux=aux, anneal=anneal)
    rising = linear(0.0, weight, until=ramp) if weight else 0.0
    if per_token:
        variant = _with_samples(base, rising, rows, data_labels)
    else:
        null: Null = "rotated" if rotate else "isotropic" if isotropic else "none"
        numbers = {"rows": rows, "clusters": clusters, "rank": rank, "shuffle": shuffle, "data_labels": data_labels}
        variant = with_metric(base, rising, null=null, **numbers)
    return _finetuned(variant, finetune, finetune_weight)


def causal_on_frontier(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    weight: float = 4,
    ramp: float = 0.2,
    clusters: float = 1,
    rows: float = 20_000,
) -> Variant:
    """`frontier` whose error also pays by the Fisher metric; numbers as in `causal`."""
    _check_causal(weight, ramp, clusters, rows, 0, 0)
    rising = linear(0.0, weight, until=ramp) if weight else 0.0
    return with_metric(frontier(d_in, n_latents, l0=l0), rising, rows=rows, clusters=clusters)


def end_to_end(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    weight: float = 4,
    ramp: float = 0.2,
    aux: float = 1 / 32,
    anneal: float = 1.0,
) -> Variant:
    """`batch_topk` that also pays, in every step, for the KL of the model that reads x_hat (Braun et al. 2024, 2405.12241)."""
    _check_causal(weight, ramp, 1, 1, 0, 0)
    rising = linear(0.0, weight, until=ramp) if weight else 0.0
    return with_kl(batch_topk(d_in, n_latents, l0=l0, aux=aux, anneal=anneal), rising)


def kl_finetune_25(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    share: float = 0.25,
    weight: float = 4,
    aux: float = 1 / 32,
    anneal: float = 1.0,
) -> Variant:
    """`batch_topk` finished by a last `share` of training with KL and a learning rate that starts anew (2503.17272)."""
    _check_causal(weight, 0, 1, 1, 0, share)
    return _finetuned(batch_topk(d_in, n_latents, l0=l0, aux=aux, anneal=anneal), share, weight)


def kl_finetune_5(
    d_in: int, n_latents: int, *, l0: float, weight: float = 4, aux: float = 1 / 32, anneal: float = 1.0
) -> Variant:
    """`kl_finetune_25` with a twentieth of training."""
    return kl_finetune_25(d_in, n_latents, l0=l0, share=0.05, weight=weight, aux=aux, anneal=anneal)


def _finetuned(base: Variant, share: float, weight: float) -> Variant:
    if share == 0 or weight == 0:
        return base
    return replace(with_kl(base, after(1 - share, weight)), restart=share)


def _with_samples(base: Variant, weight: Number, rows: float, data_labels: float) -> Variant:
    if weight == 0:
        return base
    labels = "data" if data_labels else "model"
    need = fisher_need(rows=round(rows), labels=labels)
    objective = Objective(*base.objective.terms, Term("metric", sampled(need.name, labels=labels), weight))
    return replace(base, objective=objective, needs=(*base.needs, need), batch="windows", lm=True)


def _check_causal(weight: float, ramp: float, clusters: float, rows: float, rank: float, finetune: float) -> None:
    least = {"weight": (weight, 0), "ramp": (ramp, 0), "clusters": (clusters, 1), "rows": (rows, 1), "rank": (rank, 0)}
    for name, (value, low) in (least | {"finetune": (finetune, 0)}).items():
        if not value >= low:
            raise ValueError(f"{name} is {value:g}; it must be at least {low}")
    for name, value in (("ramp", ramp), ("finetune", finetune)):
        if value > 1:
            raise ValueError(f"{name} is {value:g}; it is a share of training, at most 1")


def _check_switches(**switches: float) -> None:
    for name, value in switches.items():
        if value not in (0, 1):
            raise ValueError(f"{name} is {value:g}; it is 1 (on) or 0 (off)")
