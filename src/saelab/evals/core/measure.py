"""Core evaluation: sparsity, reconstruction, and what the language model loses when the
reconstruction is put in.

`prepare` runs the language model once per (model, hook, text); `measure` is pure and repeats only
what depends on the
dictionary: encode, decode and the layers above the hook. Source: SAEBench (Karvonen et al. 2025,
    arXiv 2503.09532), section on core metrics; the two forms of every formula are in
    `core_formulas`.

Evaluated tokens are those with `keep`. The reconstruction and the corrected ablations replace x
only there: BOS, EOS, pad and masked outliers keep their activation, so an SAE that outputs 0 scores
exactly 0. CE of a token is that of predicting the next one; a window's last token predicts nothing.
A token counts for the document it belongs to.

Memory: `CoreData` holds the activations of all windows, B*T*D*4 bytes (32 MB for 256 windows of 128
and D 256). Clean log-probabilities are not kept but recomputed from x: a measurement holds two sets
of logits of one LM batch (2*B*T*V*4 bytes: 134 MB for 32 windows of 128 and V 4,096) and codes of
at most 2^22 numbers at a time (16 MB).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saelab.evals.common.fit import check_fits
from saelab.evals.common.fold import decoder_norms
from saelab.evals.core.formulas import CORRECTED, compatible, score_columns, shipped_bias
from saelab.evals.core.latents import Firings, latent_scores, normalized_frequent
from saelab.evals.core.losses import Effect, ablations, effect, join
from saelab.evals.core.result import CoreResult, LatentProfile
from saelab.types import Dictionary, LanguageModel, Score, Windows

__all__ = [
    "CoreData",
    "CoreResult",
    "Effect",
    "LatentProfile",
    "Positions",
    "codes",
    "measure",
    "prepare",
]

PROMPTS = 16  # windows per batch in the compatible formulas: SAEBench's published setting
CODES_AT_ONCE = 1 << 22  # numbers


@dataclass(frozen=True)
class Positions:
    """What does not depend on the dictionary, per evaluated token `[N]`, in the order of the
    batches.
    """

    doc: Tensor  # which document, from 0
    window: Tensor  # which window, from 0
    scored: Tensor  # 1.0 where it predicts a token
    spread: Tensor  # |x - mean|^2, the mean over all evaluated tokens
    batch_spread: Tensor  # |x - mean|^2, the mean over its batch of `PROMPTS` windows
    share: Tensor  # 1 / evaluated tokens of that batch


@dataclass(frozen=True)
class CoreData:
    """Held-out windows with everything that all dictionaries at this hook share."""

    lm: LanguageModel
    batches: tuple[tuple[Windows, Any], ...]  # windows and the LM's state, per LM batch
    mean: Tensor  # [D], over the evaluated tokens
    positions: Positions
    clean_ce: Tensor  # [N]
    zero: Effect  # ablation: evaluated tokens set to 0, the others as they are
    mean_ablation: Effect  # ablation: evaluated tokens set to `mean`
    zero_all: Effect  # SAEBench's ablation: every token set to 0

    @property
    def n_windows(self) -> int:
        """Windows in all batches."""
        return sum(len(windows.x) for windows, _ in self.batches)

    @property
    def context(self) -> int:
        """Tokens per window, BOS included."""
        return self.batches[0][0].x.shape[1]

    @property
    def n_docs(self) -> int:
        """Documents with at least one evaluated token."""
        return int(self.positions.doc.max()) + 1


def prepare(lm: LanguageModel, batches: Iterable[tuple[Windows, Any]]) -> CoreData:
    """Run the model's upper layers on the clean and the ablated activations of held-out windows.

    `batches`: windows with the LM's state, as captured at `lm.hook`. Raises `ValueError` when no
    token is left to evaluate or an activation is not finite.
    """
    with torch.no_grad():
        kept = tuple(batches)
        _check_batches(kept, lm)
        flat = torch.cat([windows.flat.float().cpu() for windows, _ in kept])  # [N, D]
        mean = flat.mean(0, dtype=torch.double).float()
        clean_ce, (zero, mean_ablation, zero_all) = ablations(lm, kept, mean)
        return CoreData(
            lm=lm,
            batches=kept,
            mean=mean,
            positions=_positions([windows for windows, _ in kept], flat, mean),
            clean_ce=clean_ce,
            zero=zero,
            mean_ablation=mean_ablation,
            zero_all=zero_all,
        )


def measure(dictionary: Dictionary, data: CoreData) -> CoreResult:
    """Every core score of a dictionary on prepared data, corrected and compatible. Deterministic.

    Raises `ValueError` when the dictionary has another width or hook than the data.
    """
    check_fits(dictionary, len(data.mean), data.lm.hook.name)
    with torch.no_grad():
        firings = Firings(len(dictionary.directions), data.n_docs)
        columns, sae = _reconstruct(dictionary, data, firings)
        profile = firings.profile(dictionary)
        columns |= _effect_columns(data, sae)
        doc = data.positions.doc
        of_latents = latent_scores(firings, profile)
        scores = score_columns(columns, doc, CORRECTED) | of_latents
        shipped = score_columns(columns, doc, compatible(len(data.mean))) | of_latents
        batch = data.positions.window // PROMPTS
        shipped["relative_reconstruction_bias"] = shipped_bias(
            columns["out_sq"], columns["dot"], doc, batch
        )
        shipped["normalized_freq_over_1_percent"] = normalized_frequent(profile.density, 0.01)
        shipped["normalized_freq_over_10_percent"] = normalized_frequent(profile.density, 0.1)
        del shipped["dead"]  # not a SAEBench field
        nominal = Score(
            float(data.n_windows * data.context),
            reason="no interval: nominal count, masked tokens included",
        )
        shipped["total_tokens_eval_reconstruction"] = shipped[
            "total_tokens_eval_sparsity_variance"
        ] = nominal
        return CoreResult(scores, shipped, profile, _facts(dictionary, data))


def codes(dictionary: Dictionary, windows: Windows) -> Iterator[tuple[Tensor, Tensor]]:
    """The evaluated tokens of a few windows at a time, in order: (x `[n, D]`, codes `[n, L]`)."""
    where = dictionary.directions
    step = max(1, CODES_AT_ONCE // (windows.x.shape[1] * len(where)))
    for start in range(0, len(windows.x), step):
        part = slice(start, start + step)
        x = windows.x[part][windows.keep[part]].to(where.device, torch.float32)
        if len(x):
            yield x, dictionary.encode(x)


def _reconstruct(
    dictionary: Dictionary, data: CoreData, firings: Firings
) -> tuple[dict[str, Tensor], Effect]:
    """Columns `[N]` of what codes and reconstruction say by themselves, and the effect of the
    reconstruction.
    """
    rows, effects, at = [], [], 0
    norms = decoder_norms(dictionary)
    for windows, state in data.batches:
        outputs = []
        for x, z in codes(dictionary, windows):
            x_hat = dictionary.decode(z).float()
            here = slice(at, at + len(x))
            firings.add(z.float().cpu(), data.positions.doc[here], data.positions.window[here])
            rows.append(_columns(x, z, x_hat, norms).cpu())
            outputs.append(x_hat)
            at += len(x)
        spliced = windows.x.clone()
        if outputs:
            spliced[windows.keep] = torch.cat(outputs).to(spliced)
        clean = data.lm.resume(windows.x, state)
        effects.append(effect(data.lm, windows, clean, data.lm.resume(spliced, state)))
    columns = dict(zip(COLUMNS, torch.cat(rows).unbind(1), strict=True))
    positions = data.positions
    columns |= {
        "n": torch.ones(at),
        "spread": positions.spread,
        "legacy": 1 - columns["err"] / positions.batch_spread,
        "b_n": positions.share,
        "b_err": columns["err"] * positions.share,
        "b_in_sq": columns["in_sq"] * positions.share,
    }
    return columns, join(effects)


COLUMNS = (
    "l0",
    "l1",
    "l1_signed",
    "in_",
    "in_sq",
    "out",
    "out_sq",
    "ratio",
    "dot",
    "cos",
    "has_cos",
    "cos_shipped",
    "err",
)


def _columns(x: Tensor, z: Tensor, x_hat: Tensor, norms: Tensor) -> Tensor:
    """`COLUMNS` of tokens `[n, len(COLUMNS)]`."""
    in_, out, dot = x.norm(dim=1), x_hat.norm(dim=1), (x * x_hat).sum(1)
    cos = (x / in_.unsqueeze(1) * (x_hat / out.unsqueeze(1))).sum(1)  # NaN where a norm is 0
    has_cos = (in_ > 0) & (out > 0)
    ratio = out / torch.where(in_ < 1e-4, 1.0, in_)
    l0, l1, l1_signed = (z != 0).sum(1), z.abs().float() @ norms, z.sum(1)
    err = (x - x_hat).square().sum(1)
    each = (
        l0,
        l1,
        l1_signed,
        in_,
        in_**2,
        out,
        out**2,
        ratio,
        dot,
        cos.where(has_cos, 0.0),
        has_cos,
        cos,
        err,
    )
    return torch.stack([column.float() for column in each], 1)


def _effect_columns(data: CoreData, sae: Effect) -> dict[str, Tensor]:
    return {
        "none": torch.zeros_like(data.clean_ce),
        "scored": data.positions.scored,
        "ce_clean": data.clean_ce,
        "ce_sae": sae.ce,
        "ce_zero": data.zero.ce,
        "ce_mean": data.mean_ablation.ce,
        "ce_zero_all": data.zero_all.ce,
        "kl_sae": sae.kl,
        "kl_zero": data.zero.kl,
        "kl_mean": data.mean_ablation.kl,
        "kl_sae_shipped": sae.kl_shipped,
        "kl_zero_shipped": data.zero_all.kl_shipped,
    }


def _positions(windows: list[Windows], flat: Tensor, mean: Tensor) -> Positions:
    lengths = [len(w.x) for w in windows]
    starts = [sum(lengths[:i]) for i in range(len(windows))]
    number = [
        torch.arange(n).unsqueeze(1).expand(w.keep.shape) + s
        for w, n, s in zip(windows, lengths, starts, strict=True)
    ]
    predicts = [
        (torch.arange(w.keep.shape[1]) < w.keep.shape[1] - 1).expand(w.keep.shape) for w in windows
    ]
    window = torch.cat([n[w.keep.cpu()] for w, n in zip(windows, number, strict=True)])
    _, batch = (window // PROMPTS).unique(return_inverse=True)
    size = batch.bincount()
    sums = torch.zeros(len(size), flat.shape[1], dtype=torch.double).index_add_(
        0, batch, flat.double()
    )
    batch_mean = (sums / size.unsqueeze(1)).float()
    return Positions(
        doc=torch.cat([w.doc[w.keep].cpu() for w in windows]).unique(return_inverse=True)[1],
        window=window,
        scored=torch.cat([p[w.keep.cpu()] for w, p in zip(windows, predicts, strict=True)]).float(),
        spread=(flat - mean).square().sum(1),
        batch_spread=(flat - batch_mean[batch]).square().sum(1),
        share=1 / size[batch].double(),
    )


def _facts(dictionary: Dictionary, data: CoreData) -> dict[str, Any]:
    return {
        "hook": data.lm.hook.name,
        "d_in": len(data.mean),
        "n_latents": len(dictionary.directions),
        "tokens": len(data.clean_ce),
        "windows": data.n_windows,
        "documents": data.n_docs,
        "context": data.context,
        "batch_size_prompts": PROMPTS,
    }


def _check_batches(batches: tuple[tuple[Windows, Any], ...], lm: LanguageModel) -> None:
    if not any(windows.keep.any() for windows, _ in batches):
        raise ValueError(
            "no token is left to evaluate: every window is empty or masked; give a longer "
            "held-out text"
        )
    for number, (windows, _) in enumerate(batches):
        if not windows.flat.isfinite().all():
            raise ValueError(
                f"activations at {lm.hook.name} are not finite in batch {number}; the model "
                "itself is broken there"
            )
