"""Parts that make any base causal: the Fisher metric, exact KL, a price on latents without effect.
Each 0 is the base.
"""

from collections.abc import Mapping
from dataclasses import replace

from saelab.sae.activations import BatchTopK, ReLU
from saelab.sae.priced import Priced
from saelab.terms.base import Event, Objective, Steered, Term, Variant
from saelab.terms.causal import Null, ablation_need, fisher_need, kl, metric, sampled
from saelab.terms.price import Price
from saelab.terms.schedules import linear
from saelab.types import Batch, Number, Windows


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
    need = fisher_need(
        rows=round(rows), clusters=round(clusters), rank=round(rank), labels=labels, null=null
    )
    term = Term("metric", metric(need.name, shuffle=bool(shuffle)), weight)
    return replace(
        base, objective=Objective(*base.objective.terms, term), needs=(*base.needs, need)
    )


def with_kl(base: Variant, weight: Number, share: float = 1.0) -> Variant:
    """`base` with the KL of the model that reads x_hat, in every step with a weight above 0; at
    weight 0 `base` itself.

    `share`: of each batch's windows that the model runs on.
    """
    if weight == 0:
        return base
    need = ablation_need()
    objective = Objective(*base.objective.terms, Term("kl", kl(need.name, share=share), weight))
    needs = (*base.needs, need)
    return replace(base, objective=objective, needs=needs, batches=_with_windows(base), lm=True)


def with_price(
    base: Variant,
    strength: float,
    *,
    mix: Mapping[str, float],
    updates: float = 10,
    m: float = 32,
    contexts: float = 2,
) -> Variant:
    """`base` in which latents pay for having no effect, measured `updates` times; at strength 0 it
    is `base` itself.

    The price enters the ranking of BatchTopK, or the L1 penalty of ReLU. Takes `base` over. Raises
    `TypeError` for other activations, and `ValueError` for numbers out of range.
    """
    if not strength >= 0:
        raise ValueError(
            f"price is {strength:g}; it must be at least 0, for a negative one would charge the "
            "causal latents"
        )
    if strength == 0:
        return base
    if not updates >= 1:
        raise ValueError(
            f"price_updates is {updates:g}; a price is measured at least once in training"
        )
    sae, terms = base.sae, list(base.objective.terms)
    price = Price(sae.n_latents, mix, strength=strength, m=round(m), contexts=round(contexts))
    penalised = [i for i, term in enumerate(terms) if term.name == "sparsity"]
    if type(sae.act) is BatchTopK:
        sae.act = Priced(sae.act.k, sae.n_latents)
        # the first reading charges nothing
        sae.first = None if sae.first is None else Priced(sae.act.k, sae.n_latents)
    elif isinstance(sae.act, ReLU) and penalised:
        fn = terms[penalised[0]].fn
        if isinstance(fn, Steered):
            fn.penalty = price.on(fn.penalty)
        else:
            terms[penalised[0]] = replace(terms[penalised[0]], fn=price.on(fn))
    else:
        raise TypeError(
            f"a price acts on BatchTopK, or on ReLU with a penalty; not on {sae.act.name}"
        )
    at = tuple((i + 1) / (round(updates) + 1) for i in range(round(updates)))
    objective = Objective(*terms, Term("nces", price, strength))
    return replace(
        base,
        objective=objective,
        events=(*base.events, Event(at, price.measure)),
        batches=_with_windows(base),
        lm=True,
    )


def finetuned(
    base: Variant, share: float, weight: float, *, windows: float = 1.0, restart: float = 1
) -> Variant:
    """`base` finished by a last `share` of training with KL, on the share `windows` of each batch.

    The weight rises over the first fifth of that. `restart` above 0: like a run of its own, with
    new moments, warm-up and decay of the learning rate, up to `restart` times that of the run; 0:
    the rate goes on falling.
    """
    if share == 0 or weight == 0:
        return base
    rising = linear(0.0, weight, since=1 - share, until=1 - 0.8 * share)
    late = with_kl(base, rising, windows)
    return replace(late, restart=share, restart_rate=restart) if restart else late


def with_samples(base: Variant, weight: Number, rows: float, data_labels: float) -> Variant:
    """`base` with one gradient for every position in every step, in place of a mean metric."""
    if weight == 0:
        return base
    labels = "data" if data_labels else "model"
    need = fisher_need(rows=round(rows), labels=labels)
    objective = Objective(
        *base.objective.terms, Term("metric", sampled(need.name, labels=labels), weight)
    )
    needs = (*base.needs, need)
    return replace(base, objective=objective, needs=needs, batches=_with_windows(base), lm=True)


def _with_windows(base: Variant) -> Mapping[str, type[Batch]]:
    """What `base` reads, and windows, on which terms run the model."""
    return {**base.batches, "windows": Windows}
