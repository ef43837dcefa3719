"""Causal dictionaries: errors cost what they do to the model's predictions.

Hypothesis: an SAE that pays for the effect of its error on the output spends latents on what the
model reads, not on what has variance. Loss: that of the base plus weight * e' M e / E[(x - mean)' M
(x - mean)], M the Fisher metric at the hook; and exact KL through the model as the comparison.
Data: activations with the model behind them.
"""

from math import inf

from saelab.terms.base import Variant
from saelab.terms.causal import Null
from saelab.terms.schedules import linear
from saelab.variants.baselines import batch_topk, standard
from saelab.variants.causal_parts import finetuned, with_kl, with_metric, with_price, with_samples
from saelab.variants.frontier import frontier


def causal(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    weight: float = 2,
    ramp: float = 0.2,
    clusters: float = 32,
    rotate: float = 0,
    isotropic: float = 0,
    shuffle: float = 0,
    per_token: float = 0,
    data_labels: float = 0,
    rows: float = 100_000,
    rank: float = 0,
    finetune: float = 0,
    finetune_weight: float = 1,
    restart: float = 0.3,
    kl_share: float = 1,
    price: float = 0,
    price_updates: float = 10,
    price_latents: float = 32,
    price_contexts: float = 2,
    price_zero: float = 1,
    price_mean: float = 1,
    price_resample: float = 0,
    price_noise: float = 1,
    price_steer: float = 0,
    aux: float = 1 / 32,
    anneal: float = 1.0,
    refine: float = 0.15,
) -> Variant:
    """`batch_topk` whose error also pays by the Fisher metric; at `weight` 0 it is `batch_topk` of
    that `refine`, bit for bit.

    The defaults are what measured best on a language model; the worlds s1, s1b and s1d have their
    own (one metric, weight 4). `ramp`: share of training in which the weight rises from 0.
    `clusters`: one metric per cluster of x. `rows`: activations that it comes from; `rank` above 0:
    its leading directions only. `finetune`: last share of training in which exact KL joins with
    `finetune_weight`, on `kl_share` of the windows; `restart`: the peak of its own learning rate
    over the run's; 0: the rate goes on falling. `price` above 0: latents without effect pay up to
    that multiple of the mean code before they are selected; measured `price_updates` times, on
    `price_latents` latents and `price_contexts` positions each, by the types of weight above 0
    (`terms.price`). `refine`: as in `batch_topk`.

    For ablations: `rotate` and `isotropic` 1 are metrics that know nothing, `shuffle` 1 gives every
    x the metric of another one's cluster, `data_labels` 1 takes labels from the text instead of the
    model, `per_token` 1 draws one gradient for every position in every step instead of a mean
    metric. Raises `ValueError` for numbers out of range.
    """
    _check_causal(
        weight=weight,
        ramp=ramp,
        clusters=clusters,
        rows=rows,
        rank=rank,
        finetune=finetune,
        restart=restart,
    )
    _check_switches(shuffle=shuffle, data_labels=data_labels)
    null = _null(rotate, isotropic, per_token)
    base = batch_topk(d_in, n_latents, l0=l0, aux=aux, anneal=anneal, refine=refine)
    rising = linear(0.0, weight, until=ramp) if weight else 0.0
    if per_token:
        variant = with_samples(base, rising, rows, data_labels)
    else:
        numbers = {
            "rows": rows,
            "clusters": clusters,
            "rank": rank,
            "shuffle": shuffle,
            "data_labels": data_labels,
        }
        variant = with_metric(base, rising, null=null, **numbers)
    mix = {
        "zero": price_zero,
        "mean": price_mean,
        "resample": price_resample,
        "noise": price_noise,
        "steer": price_steer,
    }
    counts = {"updates": price_updates, "m": price_latents, "contexts": price_contexts}
    variant = with_price(variant, price, mix=mix, **counts)
    return finetuned(variant, finetune, finetune_weight, windows=kl_share, restart=restart)


def causal_on_standard(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    weight: float = 4,
    ramp: float = 0.2,
    clusters: float = 1,
    rows: float = 20_000,
    price: float = 0,
) -> Variant:
    """`standard` whose error also pays by the Fisher metric, and whose L1 penalty grows by `price`;
    numbers as in `causal`.
    """
    _check_causal(weight=weight, ramp=ramp, clusters=clusters, rows=rows)
    rising = linear(0.0, weight, until=ramp) if weight else 0.0
    variant = with_metric(standard(d_in, n_latents, l0=l0), rising, rows=rows, clusters=clusters)
    return with_price(variant, price, mix={"zero": 1, "mean": 1, "noise": 1})


def causal_as_stated(d_in: int, n_latents: int, *, l0: float, price: float = 0.01) -> Variant:
    """The idea in its first wording: an L1 SAE, 32 latents intervened on every so often, and a
    weight of .01 on what is found.

    Types: ablation to zero, noise, and steering along latents of which half are the most causal
    ones by the Fisher estimate.
    """
    return with_price(
        standard(d_in, n_latents, l0=l0), price, mix={"zero": 1, "noise": 1, "steer": 1}, m=32
    )


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
    _check_causal(weight=weight, ramp=ramp, clusters=clusters, rows=rows)
    rising = linear(0.0, weight, until=ramp) if weight else 0.0
    return with_metric(frontier(d_in, n_latents, l0=l0), rising, rows=rows, clusters=clusters)


def end_to_end(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    weight: float = 0.25,
    ramp: float = 0.2,
    kl_share: float = 1,
    aux: float = 1 / 32,
    anneal: float = 1.0,
    refine: float = 0.0,
) -> Variant:
    """`batch_topk` that also pays, in every step, for the KL of the model that reads x_hat (Braun
    et al. 2024, 2405.12241).

    `kl_share`: of each batch's windows that the model runs on.
    """
    _check_causal(weight=weight, ramp=ramp)
    rising = linear(0.0, weight, until=ramp) if weight else 0.0
    return with_kl(
        batch_topk(d_in, n_latents, l0=l0, aux=aux, anneal=anneal, refine=refine), rising, kl_share
    )


def kl_finetune_25(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    share: float = 0.25,
    weight: float = 1,
    restart: float = 0.3,
    kl_share: float = 1,
    aux: float = 1 / 32,
    anneal: float = 1.0,
    refine: float = 0.0,
) -> Variant:
    """`batch_topk` finished by a last `share` of training with KL and a learning rate that starts
    anew (2503.17272).

    `restart`: its peak over the run's; 0: the rate goes on falling instead. `kl_share`: of each
    batch's windows that the model runs on.
    """
    _check_causal(weight=weight, share=share, restart=restart)
    base = batch_topk(d_in, n_latents, l0=l0, aux=aux, anneal=anneal, refine=refine)
    return finetuned(base, share, weight, windows=kl_share, restart=restart)


def kl_finetune_5(
    d_in: int,
    n_latents: int,
    *,
    l0: float,
    weight: float = 1,
    restart: float = 0.3,
    aux: float = 1 / 32,
    anneal: float = 1.0,
) -> Variant:
    """`kl_finetune_25` with a twentieth of training."""
    return kl_finetune_25(
        d_in, n_latents, l0=l0, share=0.05, weight=weight, restart=restart, aux=aux, anneal=anneal
    )


def _check_causal(**numbers: float) -> None:
    for name, value in numbers.items():
        low = 1 if name in ("clusters", "rows") else 0
        if not low <= value < inf:
            raise ValueError(f"{name} is {value:g}; it must be at least {low}, and finite")
        if name in ("clusters", "rows", "rank") and value % 1:
            raise ValueError(f"{name} is {value:g}; it is a count, a whole number")
        if name in ("ramp", "finetune", "share") and value > 1:
            raise ValueError(f"{name} is {value:g}; it is a share of training, at most 1")


def _check_switches(**switches: float) -> None:
    for name, value in switches.items():
        if value not in (0, 1):
            raise ValueError(f"{name} is {value:g}; it is 1 (on) or 0 (off)")


def _null(rotate: float, isotropic: float, per_token: float) -> Null:
    _check_switches(rotate=rotate, isotropic=isotropic, per_token=per_token)
    if rotate + isotropic + per_token > 1:
        raise ValueError(
            "rotate, isotropic and per_token each replace the metric; switch on one of them at most"
        )
    return "rotated" if rotate else "isotropic" if isotropic else "none"
