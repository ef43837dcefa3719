"""The formulas of the core evaluation, each a statistic of per-document sums, in two forms.

`CORRECTED` says what the names say. `COMPATIBLE` is SAEBench 0.6.0 formula for formula, oddities
included: mse divided by the tokens of a batch, explained variance with (S / d)^2 where |E x|^2 was
meant, signed l1, NaN when a single reconstruction is zero or a probability underflows, zero
ablation that zeroes BOS too although the SAE pass keeps it.

Names of sums: `n` evaluated tokens, `scored` those of them that predict a token, `err` |x -
x_hat|^2, `spread` |x - mean|^2, `in_` |x|, `out` |x_hat|, `dot` x . x_hat, `ce_*` and `kl_*` nats
of the clean model, the SAE and the ablations.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from saelab.stats import Resampling
from saelab.types import Score

Sums = Mapping[str, Tensor]  # name -> [R], one value per resample


@dataclass(frozen=True)
class Formula:
    """A named statistic of sums, and why it may be undefined."""

    name: str
    fn: Callable[[Sums], Tensor]
    undefined: str = ""


def mean_of(name: str, over: str = "n") -> Callable[[Sums], Tensor]:
    """Mean of one sum over the tokens that `over` counts."""
    return lambda s: s[name] / s[over]


def recovered(clean: str, ablated: str, sae: str) -> Callable[[Sums], Tensor]:
    """(ablated - sae) / (ablated - clean): 1 the model unharmed, 0 no better than the ablation.

    Undefined (NaN) unless the ablation harms the model.
    """

    def share(s: Sums) -> Tensor:
        harm = s[ablated] - s[clean]
        return torch.where(harm > 0, (s[ablated] - s[sae]) / harm, torch.nan)

    return share


NO_HARM = "the ablation does not harm the model, so there is nothing to recover"
NO_COSINE = "the cosine with an all-zero vector is undefined: no reconstruction is non-zero"
NO_BIAS = "the reconstruction has no component along the input"
NO_CE = "no evaluated token predicts another one"
SHIPPED_NAN = "SAEBench's formula gives NaN here (it writes -1): a vector of norm 0 is normalised"
SHIPPED_KL = (
    "SAEBench's formula gives NaN or infinity here: a probability underflows to 0 before its log "
    "is taken"
)

CORRECTED = (
    Formula("l0", mean_of("l0")),
    Formula("l1", mean_of("l1")),
    Formula(
        "explained_variance",
        lambda s: 1 - s["err"] / s["spread"],
        "the activations do not vary",
    ),
    Formula("mse", mean_of("err")),
    Formula("cossim", mean_of("cos", "has_cos"), NO_COSINE),
    Formula("l2_ratio", mean_of("ratio")),
    Formula("relative_reconstruction_bias", lambda s: s["out_sq"] / s["dot"], NO_BIAS),
    Formula("ce_loss_score", recovered("ce_clean", "ce_zero", "ce_sae"), NO_HARM),
    Formula("ce_loss_score_mean", recovered("ce_clean", "ce_mean", "ce_sae"), NO_HARM),
    Formula("ce_loss_with_sae", mean_of("ce_sae", "scored"), NO_CE),
    Formula("ce_loss_without_sae", mean_of("ce_clean", "scored"), NO_CE),
    Formula("ce_loss_with_ablation", mean_of("ce_zero", "scored"), NO_CE),
    Formula("kl_div_score", recovered("none", "kl_zero", "kl_sae"), NO_HARM),
    Formula("kl_div_score_mean", recovered("none", "kl_mean", "kl_sae"), NO_HARM),
    Formula("kl_div_with_sae", mean_of("kl_sae")),
    Formula("kl_div_with_ablation", mean_of("kl_zero")),
)


def compatible(d_in: int) -> tuple[Formula, ...]:
    """SAEBench's formulas that are statistics of per-document sums; its explained variance depends
    on the width.

    `b_n`, `b_err` and `b_in_sq` weigh every token by 1 / tokens of its batch, so that their sums
    are sums over batches of batch means; S and R of the formula 1 - R / (S - (S / d)^2) are plain
    means over batches.
    """

    def shipped_variance(s: Sums) -> Tensor:
        power, residual = s["b_in_sq"] / s["b_n"], s["b_err"] / s["b_n"]
        return 1 - residual / (power - (power / d_in) ** 2)

    zero = "as shipped, the denominator is 0"
    return (
        Formula(
            "kl_div_score",
            lambda s: 1 - s["kl_sae_shipped"] / s["kl_zero_shipped"],
            SHIPPED_KL,
        ),
        Formula("kl_div_with_ablation", mean_of("kl_zero_shipped"), SHIPPED_KL),
        Formula("kl_div_with_sae", mean_of("kl_sae_shipped"), SHIPPED_KL),
        Formula(
            "ce_loss_score",
            lambda s: (s["ce_zero_all"] - s["ce_sae"]) / (s["ce_zero_all"] - s["ce_clean"]),
            zero,
        ),
        Formula("ce_loss_with_ablation", mean_of("ce_zero_all", "scored"), NO_CE),
        Formula("ce_loss_with_sae", mean_of("ce_sae", "scored"), NO_CE),
        Formula("ce_loss_without_sae", mean_of("ce_clean", "scored"), NO_CE),
        Formula("explained_variance", shipped_variance, zero),
        Formula("explained_variance_legacy", mean_of("legacy"), zero),
        Formula("mse", mean_of("b_err")),
        Formula("cossim", mean_of("cos_shipped"), SHIPPED_NAN),
        Formula("l2_norm_in", mean_of("in_")),
        Formula("l2_norm_out", mean_of("out")),
        Formula("l2_ratio", mean_of("ratio")),
        Formula("l0", mean_of("l0")),
        Formula("l1", mean_of("l1_signed")),
    )


def score_columns(
    columns: Mapping[str, Tensor], doc: Tensor, formulas: tuple[Formula, ...]
) -> dict[str, Score]:
    """Every formula with its bootstrap interval over documents, all from the same resamples.

    `columns`: name -> `[N]`, one value per evaluated token; `doc [N]`: which of the C documents,
    from 0.
    """
    names = list(columns)
    values = torch.stack([columns[name].double() for name in names], 1)  # [N, S]
    # [C, S]
    sums = torch.zeros(int(doc.max()) + 1, len(names), dtype=torch.double).index_add_(
        0, doc, values
    )
    resampling = Resampling(sums)

    def score(formula: Formula) -> Score:
        fn = lambda s: formula.fn(dict(zip(names, s.unbind(1), strict=True)))  # noqa: E731
        return resampling.score(fn, undefined=formula.undefined)

    return {formula.name: score(formula) for formula in formulas}


def shipped_bias(out_sq: Tensor, dot: Tensor, doc: Tensor, batch: Tensor) -> Score:
    """SAEBench's relative reconstruction bias: mean |x_hat|^2 / mean x . x_hat per batch, then the
    mean over batches.

    All arguments `[N]`. Batches that a resample leaves empty are left out of its mean.
    """
    n_docs, n_batches = int(doc.max()) + 1, int(batch.max()) + 1
    sums = torch.zeros(n_docs * n_batches, 2, dtype=torch.double)
    sums.index_add_(0, doc * n_batches + batch, torch.stack([out_sq, dot], 1).double())

    def mean_ratio(s: Tensor) -> Tensor:
        pairs = s.view(len(s), n_batches, 2)
        ratio = pairs[..., 0] / pairs[..., 1]
        return ratio.nanmean(1) if len(s) > 1 else ratio.mean(1)

    return Resampling(sums.view(n_docs, n_batches * 2)).score(mean_ratio, undefined=SHIPPED_NAN)
