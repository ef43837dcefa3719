"""Terms that ask what an error does to the model's predictions, not how large it is.

`metric` and `sampled` do it to second order, `kl` exactly. The gradient of KL(clean || changed) is
0 at the clean point, so there is no first-order term here, and "KL gradient times activation" would
be 0 for every latent.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from saelab.effects.gradients import differentiable
from saelab.effects.moments import (
    Labels,
    fisher,
    kl_of_logits,
    mean_ablation,
    nearest,
    quadratic,
    score,
)
from saelab.numbers import Kind
from saelab.terms.base import Need, Step, TermFunction
from saelab.types import ActivationSource, Cursor, LanguageModel, Windows

log = logging.getLogger("saelab.terms")
Null = Literal["none", "rotated", "isotropic"]


def fisher_need(
    *,
    rows: int = 20_000,
    clusters: int = 1,
    rank: int = 0,
    labels: Labels = "model",
    null: Null = "none",
    seed: int = 0,
) -> Need:
    """The Fisher metric of the model behind the stream, from its first windows;
    `effects.moments.fisher` says what the numbers are.

    `null`: the metric through a random rotation, or the identity, for controls that must not help.
    """

    def compute(source: ActivationSource) -> Mapping[str, Tensor]:
        lm, mean = _model(source), source.stats.mean
        numbers = {"rows": rows, "seed": seed, "clusters": clusters, "rank": rank}
        metric = fisher(lm, _windows(source), mean, **numbers, labels=labels)
        log.info("Fisher metric at %s from %s positions", lm.hook.name, f"{metric.tokens:,}")
        if metric.note:
            log.warning(metric.note)
        if null != "none":
            metric = metric.rotated(seed) if null == "rotated" else metric.isotropic()
        return metric.tensors(source)

    return Need(
        f"fisher rows={rows} clusters={clusters} rank={rank} {labels} {null} seed={seed}",
        compute,
        lm=True,
    )


def ablation_need(*, rows: int = 8_192) -> Need:
    """What it costs the model, in KL, to see the mean activation everywhere: the unit of `kl`."""

    def compute(source: ActivationSource) -> Mapping[str, Tensor]:
        mean = source.stats.mean
        divergence = mean_ablation(_model(source), _windows(source), mean, rows=rows)
        return {"kl": mean.new_tensor(divergence)}

    return Need(f"mean ablation rows={rows}", compute, lm=True)


def metric(need: str, *, shuffle: bool) -> TermFunction:
    """mean of e' M e / E[(x - mean)' M (x - mean)], e = x - x_hat, M that of x's cluster; >= 0, and
    1 at x_hat = mean.

    M is the Fisher metric that `need` names. With `shuffle` each x gets the cluster of another one
    in the batch. Raises `ValueError` when M has another width than x.
    """

    def term(step: Step) -> Tensor:
        factors, spread = step.stats[f"{need}.factors"], step.stats[f"{need}.spread"]
        if factors.shape[-1] != step.x.shape[-1]:
            raise ValueError(
                f"a Fisher metric of width {factors.shape[-1]} for activations of width "
                f"{step.x.shape[-1]}"
            )
        cluster = nearest(step.x / step.scale, step.stats[f"{need}.centroids"])
        if shuffle:
            order = torch.randperm(len(cluster), generator=step.generator)
            cluster = cluster[order.to(cluster.device)]
        error = quadratic((step.x - step.x_hat) / step.scale, factors, cluster)
        return error / (len(step.x) * spread)

    return term


def sampled(need: str) -> TermFunction:
    """mean of (g . e)^2 / E[(g . (x - mean))^2] with one fresh g for every position, through the
    model in every step.

    The same expectation as `metric` if M depended on each x alone; heavy-tailed, and the weakest
    form where it was measured.
    """

    def term(step: Step) -> Tensor:
        lm, step = _with_model(step)
        windows = step.windows
        g = score(lm, windows, _on(step.generator, windows.x.device))  # [B, T, D]
        g = g[windows.keep].to(step.x)  # [N, D]
        e = (step.x - step.x_hat) / step.scale
        return (g * e).sum(1).square().mean() / step.stats[f"{need}.own"]

    return term


def kl(need: str, *, share: float = 1.0) -> TermFunction:
    """KL(clean || x_hat in place of x at every kept position) / KL(clean || mean there), over kept
    positions.

    >= 0, and 1 when x_hat is the mean; its gradient is 0 at x_hat = x. Braun et al. 2024,
    2405.12241, section 3. `share` below 1: on that share of the batch's windows, drawn anew in
    every step, at least one; the same in expectation, for that share of the price. Raises
    `ValueError` for a share out of (0, 1].
    """
    Kind(0, 1, above=True).check("the share of windows with exact KL", share)

    def term(step: Step) -> Tensor:
        lm, step = _with_model(step, share)
        windows = step.windows
        x_hat = step.in_windows(step.x_hat / step.scale).to(windows.x)  # [B, T, D]
        _, state = lm.capture(windows.tokens)
        with torch.no_grad():
            clean = lm.resume(windows.x, state)
        changed = lm.resume(torch.where(windows.keep.unsqueeze(2), x_hat, windows.x), state)
        if x_hat.requires_grad:
            changed = differentiable(lm, changed)
        return kl_of_logits(clean, changed)[windows.keep].mean() / step.stats[f"{need}.kl"]

    return term


def _with_model(step: Step, share: float = 1.0) -> tuple[LanguageModel, Step]:
    """The model, and the step on windows that it can read."""
    on_windows = step.on_windows(share)
    if on_windows.lm is None:
        raise TypeError("this term runs the model; its variant must say lm=True")
    return on_windows.lm, on_windows


def _on(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """The generator itself, or one of the device that it seeds."""
    if generator.device == device:
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def _model(source: ActivationSource) -> LanguageModel:
    if source.lm is None:
        raise ValueError(
            "the activations have no model behind them, and a Fisher metric is one of a model's "
            "predictions"
        )
    return source.lm


def _windows(source: ActivationSource) -> Iterator[Windows]:
    for views, _ in source.batches(Windows, Cursor()):
        if not isinstance(views.main, Windows):
            raise TypeError("the stream gave shuffled tokens when asked for windows")
        yield views.main
