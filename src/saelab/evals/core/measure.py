"""Core evaluation: sparsity, reconstruction, and what the language model loses when the
reconstruction is put in.

`prepare` runs the language model once per (model, hook, text); `measure` is pure and repeats only
what depends on the dictionary: encode, decode and the layers above the hook. Source: SAEBench
(Karvonen et al. 2025, arXiv 2503.09532), section on core metrics; the two forms of every formula
are in `formulas`.

Evaluated tokens are those with `keep`. The reconstruction and the corrected ablations replace x
only there: BOS, EOS, pad and masked outliers keep their activation, so an SAE that outputs 0 scores
exactly 0. CE of a token is that of predicting the next one; a window's last token predicts nothing.
A token counts for the document it belongs to.

Memory: a measurement holds two sets of logits of one LM batch (2*B*T*V*4 bytes: 134 MB for 32
windows of 128 and V 4,096) and codes of at most 2^22 numbers at a time (16 MB).
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from saelab.evals.common.fold import decoder_norms
from saelab.evals.common.reading import check_fits
from saelab.evals.core.data import PROMPTS, CoreData, codes
from saelab.evals.core.examples import RULE, latent_examples
from saelab.evals.core.formulas import CORRECTED, compatible, score_columns, shipped_bias
from saelab.evals.core.latents import (
    Firings,
    LatentProfile,
    latent_scores,
    normalized_frequent,
)
from saelab.evals.core.losses import Effect, effect, join
from saelab.evals.result import Result
from saelab.types import Dictionary, Score


@torch.no_grad()
def measure(dictionary: Dictionary, data: CoreData) -> Result:
    """Every core score of a dictionary on prepared data, a profile of every latent, and the text of
    the most interesting ones. Deterministic.

    `details`: the same scores in SAEBench's own formulas (`compatible`) and the profile
    (`latents`). Raises `ValueError` when the dictionary has another width or hook than the data.
    """
    check_fits(dictionary, len(data.mean), data.lm.hook)
    firings = Firings(len(dictionary.directions), data.n_docs)
    columns, sae = _reconstruct(dictionary, data, firings)
    profile = firings.profile(dictionary)
    columns |= _effect_columns(data, sae)
    of_latents = latent_scores(firings, profile)
    shipped = _shipped(columns, data, profile) | {
        name: score for name, score in of_latents.items() if name != "dead"
    }
    examples = [asdict(example) for example in latent_examples(dictionary, data, firings)]
    return Result(
        score_columns(columns, data.positions.doc, CORRECTED) | of_latents,
        figures=(profile.density_figure,),
        details={
            "eval": "core",
            "facts": _facts(dictionary, data),
            "compatible": {name: asdict(score) for name, score in shipped.items()},
            "latents": profile.to_json(),
        },
        files={"latents": {"rule": RULE, "latents": examples}},
    )


def _shipped(
    columns: dict[str, Tensor], data: CoreData, profile: LatentProfile
) -> dict[str, Score]:
    """What SAEBench ships, formula for formula, but for the shares of latents."""
    doc, batch = data.positions.doc, data.positions.window // PROMPTS
    nominal = Score(
        float(data.n_windows * data.context),
        reason="no interval: nominal count, masked tokens included",
    )
    return score_columns(columns, doc, compatible(len(data.mean))) | {
        "relative_reconstruction_bias": shipped_bias(columns["out_sq"], columns["dot"], doc, batch),
        "normalized_freq_over_1_percent": normalized_frequent(profile.density, 0.01),
        "normalized_freq_over_10_percent": normalized_frequent(profile.density, 0.1),
        "total_tokens_eval_sparsity_variance": nominal,
        "total_tokens_eval_reconstruction": nominal,
    }


def _reconstruct(
    dictionary: Dictionary, data: CoreData, firings: Firings
) -> tuple[dict[str, Tensor], Effect]:
    """Columns `[N]` of what codes and reconstruction say, and the effect of the reconstruction."""
    rows, effects, at = [], [], 0
    norms = decoder_norms(dictionary)
    for windows, state, clean in data.read():
        outputs = []
        for x, z in codes(dictionary, windows):
            x_hat = dictionary.decode(z).float()
            here = slice(at, at + len(x))
            firings.add(z.float().cpu(), data.positions.doc[here], data.positions.window[here])
            rows.append(_columns(x, z, x_hat, norms))
            outputs.append(x_hat)
            at += len(x)
        spliced = windows.x.clone()
        if outputs:
            spliced[windows.keep] = torch.cat(outputs).to(spliced)
        effects.append(effect(data.lm, windows, clean, data.lm.resume(spliced, state)))
    columns = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
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


def _columns(x: Tensor, z: Tensor, x_hat: Tensor, norms: Tensor) -> dict[str, Tensor]:
    """Sums of `formulas` before they are summed, of tokens `[n]`."""
    in_, out, dot = x.norm(dim=1), x_hat.norm(dim=1), (x * x_hat).sum(1)
    cos = (x / in_.unsqueeze(1) * (x_hat / out.unsqueeze(1))).sum(1)  # NaN where a norm is 0
    has_cos = (in_ > 0) & (out > 0)
    columns = {
        "l0": (z != 0).sum(1),
        "l1": z.abs().float() @ norms,
        "l1_signed": z.sum(1),
        "in_": in_,
        "in_sq": in_**2,
        "out": out,
        "out_sq": out**2,
        "ratio": out / torch.where(in_ < 1e-4, 1.0, in_),
        "dot": dot,
        "cos": cos.where(has_cos, 0.0),
        "has_cos": has_cos,
        "cos_shipped": cos,
        "err": (x - x_hat).square().sum(1),
    }
    return {name: column.float().cpu() for name, column in columns.items()}


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
