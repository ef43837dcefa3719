"""Parts of the causal idea: errors cost what they do to the model's predictions.

Hypothesis: an SAE that pays for the effect of its error on the output spends latents on what the
model reads, not on what has variance. Loss: that of the base plus weight * e' M e / E[(x - mean)' M
(x - mean)], M the Fisher metric at the hook; and, for comparison, exact KL through the model, and a
price on latents without effect. Data: activations with the model behind them.
"""

from dataclasses import replace
from typing import Annotated, Literal, cast

from saelab.numbers import Count, Kind, NonNegative, Share, Times
from saelab.terms.base import Event, Need, Objective, Term, TermFunction, Variant
from saelab.terms.causal import ablation_need, fisher_need, kl, metric, sampled
from saelab.terms.events import evenly
from saelab.terms.price import Price
from saelab.terms.schedules import linear
from saelab.types import Windows

Ramp = Annotated[Share, "of training, in which the weight rises from 0"]
Rows = Annotated[Count, "activations that the metric comes from"]
WindowShare = Annotated[
    float, Kind(0, 1, above=True), "share of each batch's windows that the model runs on"
]
Mixed = "weight of this type of intervention in a latent's NCES"
POSITIONS = 2  # on which each latent is changed when a price is measured


def with_metric(
    base: Variant,
    *,
    weight: Annotated[NonNegative, "of the Fisher metric's error in the loss"] = 2,
    ramp: Ramp = 0.2,
    clusters: Annotated[Count, "clusters of x, each with a metric of its own"] = 32,
    rows: Rows = 100_000,
    rank: Annotated[Times, "leading directions of the metric that count; 0: all"] = 0,
    null: Literal["none", "rotated", "isotropic", "shuffled", "labels"] = "none",
) -> Variant:
    """The base's error also pays by the Fisher metric, which the model is asked for once, before
    training. The defaults measured best on a language model.

    `null`: the control that replaces the metric; `shuffled` gives every x the metric of another
    one's cluster, `labels` takes them from the text instead of the model.
    """
    if weight == 0:
        return base
    need = fisher_need(
        rows=round(rows),
        clusters=round(clusters),
        rank=round(rank),
        labels="data" if null == "labels" else "model",
        null=null if null in ("rotated", "isotropic") else "none",
    )
    fn = metric(need.name, shuffle=null == "shuffled")
    return _joined(base, Term("metric", fn, linear(0.0, weight, until=ramp)), need)


def with_samples(
    base: Variant,
    *,
    weight: Annotated[NonNegative, "of the sampled error in the loss"] = 2,
    ramp: Ramp = 0.2,
    rows: Rows = 100_000,
) -> Variant:
    """A control: a gradient for every position in every step, in place of a mean metric."""
    if weight == 0:
        return base
    need = fisher_need(rows=round(rows))
    term = Term("metric", sampled(need.name), linear(0.0, weight, until=ramp))
    return _joined(_reading_model(base), term, need)


def with_kl(
    base: Variant,
    *,
    weight: Annotated[NonNegative, "of the KL in the loss"] = 0.25,
    ramp: Ramp = 0.2,
    windows: WindowShare = 1,
) -> Variant:
    """The base also pays, in every step, for the KL of the model that reads x_hat (Braun et al.
    2024, 2405.12241).
    """
    if weight == 0:
        return base
    need = ablation_need()
    fn = kl(need.name, share=windows)
    return _joined(_reading_model(base), Term("kl", fn, linear(0.0, weight, until=ramp)), need)


def with_kl_finetune(
    base: Variant,
    *,
    weight: Annotated[NonNegative, "of the KL, reached after a fifth of the phase"] = 1,
    share: Annotated[Share, "of training that the phase lasts, its end"] = 0.25,
    restart: Annotated[
        NonNegative, "peak of the phase's learning rate over the run's; 0: it goes on falling"
    ] = 0.3,
    windows: WindowShare = 1,
) -> Variant:
    """The base is finished by a phase with KL through the model, like a run of its own with new
    moments, warm-up and decay of the learning rate (2503.17272).
    """
    if share == 0 or weight == 0:
        return base
    need = ablation_need()
    rising = linear(0.0, weight, since=1 - share, until=1 - 0.8 * share)
    term = Term("kl", kl(need.name, share=windows), rising)
    late = _joined(_reading_model(base), term, need)
    return replace(late, restart=share, restart_rate=restart) if restart else late


def with_price(
    base: Variant,
    *,
    weight: Annotated[
        NonNegative,
        "highest price over the mean code, for a negative one would charge the causal latents",
    ] = 0.3,
    updates: Annotated[Count, "measurements, evenly spaced over training"] = 10,
    latents: Annotated[Count, "latents changed in each measurement"] = 32,
    zero: Annotated[NonNegative, Mixed] = 1,
    mean: Annotated[NonNegative, Mixed] = 1,
    resample: Annotated[NonNegative, Mixed] = 0,
    noise: Annotated[NonNegative, Mixed] = 1,
    steer: Annotated[NonNegative, Mixed] = 0,
) -> Variant:
    """Latents of the base pay for having no effect on the model, as interventions during training
    measure it.

    The price enters the ranking of BatchTopK, or the L1 penalty of ReLU. Takes `base` over. Raises
    `ValueError` for other activations, and where no type has a weight.
    """
    if weight == 0:
        return base
    sae, terms = base.sae, base.objective.terms
    mix = {"zero": zero, "mean": mean, "resample": resample, "noise": noise, "steer": steer}
    price = Price(sae.n_latents, mix, strength=weight, m=round(latents), contexts=POSITIONS)
    act = sae.act.priced(sae.n_latents)
    if act is not None:
        sae.act = act
        # the first reading charges nothing
        sae.first = None if sae.first is None else sae.act.priced(sae.n_latents)
    elif sae.act.shrunk_by_penalty and any(term.name == "sparsity" for term in terms):
        terms = [
            replace(term, fn=price.on(cast(TermFunction, term.fn)))
            if term.name == "sparsity"
            else term
            for term in terms
        ]
    else:
        raise ValueError(
            f"a price acts on BatchTopK, or on ReLU with a penalty; not on {sae.act.name}"
        )
    objective = Objective(*terms, Term("nces", price, weight))
    events = (*base.events, Event(evenly(round(updates)), price.measure))
    return replace(_reading_model(base), objective=objective, events=events)


def _joined(base: Variant, term: Term, need: Need) -> Variant:
    """The base with one more term and what it needs of the stream."""
    objective = Objective(*base.objective.terms, term)
    return replace(base, objective=objective, needs=(*base.needs, need))


def _reading_model(base: Variant) -> Variant:
    """The base with windows beside what it reads, on which its terms run the model."""
    return replace(base, batches={**base.batches, "windows": Windows}, lm=True)
