"""SAEBench's result files (schema of SAEBench 0.6.0), so that its readers and plots open saelab's
core results.

The values are the `compatible` ones: SAEBench's formulas, oddities included. Its convention writes
-1 where a number is NaN, so an undefined number is -1 *in this file only*; saelab's own json beside
it holds null and the reason. Differences that remain: both passes read the same windows (SAEBench
takes the sparsity pass from the windows after the reconstruction ones), and masked norm outliers,
if the source masks any, are left out as special tokens are.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from saelab.evals.result import Result
from saelab.runs import Source, WorldSource
from saelab.sae.module import SAE
from saelab.store import plain, write_json

CATEGORIES: dict[str, tuple[str, ...]] = {
    "model_behavior_preservation": ("kl_div_score", "kl_div_with_ablation", "kl_div_with_sae"),
    "model_performance_preservation": (
        "ce_loss_score",
        "ce_loss_with_ablation",
        "ce_loss_with_sae",
        "ce_loss_without_sae",
    ),
    "reconstruction_quality": ("explained_variance", "explained_variance_legacy", "mse", "cossim"),
    "shrinkage": ("l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias"),
    "sparsity": ("l0", "l1"),
    "token_stats": ("total_tokens_eval_reconstruction", "total_tokens_eval_sparsity_variance"),
    "misc_metrics": (
        "freq_over_1_percent",
        "freq_over_10_percent",
        "normalized_freq_over_1_percent",
        "normalized_freq_over_10_percent",
        "average_max_encoder_cosine_sim",
        "average_max_decoder_cosine_sim",
        "frac_alive",
    ),
}
DETAILS = {  # SAEBench's name -> ours, of the profile of latents
    "feature_density": "density",
    "consistent_activation_heuristic": "consistency",
    "encoder_bias": "encoder_bias",
    "encoder_norm": "encoder_norm",
    "encoder_decoder_cosine_sim": "encoder_decoder_cosine",
    "max_decoder_cosine_sim": "max_decoder_cosine",
    "max_encoder_cosine_sim": "max_encoder_cosine",
}
COUNTS = CATEGORIES["token_stats"]
DECIMALS = 10
UNDEFINED = -1  # SAEBench's mark
SAE_ID = "custom_sae"  # SAEBench's id of an SAE that is no SAELens release


@dataclass(frozen=True)
class Labels:
    """What SAEBench's schema asks besides the numbers. `release` names the file."""

    release: str
    model: str
    dataset: str
    sae_cfg: Mapping[str, Any] = field(default_factory=dict)


def core_to_saebench(result: Result, labels: Labels) -> dict[str, Any]:
    """A core result as SAEBench's json value. Two calls differ in the time and in the id."""
    metrics = {
        category: {name: _number(result, name) for name in names}
        for category, names in CATEGORIES.items()
    }
    return {
        "eval_type_id": "core",
        "eval_config": _config(result, labels),
        "eval_id": str(uuid.uuid4()),
        "datetime_epoch_millis": int(time.time() * 1000),
        "eval_result_metrics": metrics,
        "eval_result_details": _details(result),
        "sae_bench_commit_hash": "Unknown",  # SAEBench itself did not run
        "sae_lens_id": SAE_ID,
        "sae_lens_release_id": labels.release,
        "sae_lens_version": "unknown",
        "sae_cfg_dict": plain(labels.sae_cfg),
        "eval_result_unstructured": {},
    }


def file_name(labels: Labels) -> str:
    """SAEBench's name of the file: `{release}_{id}_eval_results.json`, slashes replaced."""
    return f"{labels.release}_{SAE_ID}_eval_results.json".replace("/", "_")


def export(folder: Path, source: Source | WorldSource, sae: SAE, result: Result) -> None:
    """Write a core result into `<folder>/saebench`; other results have no place in the format."""
    if "compatible" not in result.details:
        return
    assert isinstance(source, Source), "core results are those of language models"
    config = {
        "d_in": sae.d_in,
        "d_sae": sae.n_latents,
        "hook_name": None if sae.hook is None else sae.hook.name,
        "architecture": sae.name,
    }
    release = f"saelab_{folder.parent.name}"
    labels = Labels(release, source.model, source.corpus, sae_cfg=config)
    write_json(folder / "saebench" / file_name(labels), core_to_saebench(result, labels))


def _config(result: Result, labels: Labels) -> dict[str, Any]:
    """Every field of SAEBench's core configuration, as this measurement was made."""
    facts = result.details["facts"]
    prompts = facts["batch_size_prompts"]
    n_batches = -(-facts["windows"] // prompts)
    families = ("kl", "ce_loss", "l2_norms", "sparsity_metrics", "variance_metrics")
    per_latent = ("featurewise_density_statistics", "featurewise_weight_based_metrics")
    return {
        "model_name": labels.model,
        "llm_dtype": "float32",
        "batch_size_prompts": prompts,
        "n_eval_reconstruction_batches": n_batches,
        "n_eval_sparsity_variance_batches": n_batches,
        "dataset": labels.dataset,
        "context_size": facts["context"],
        "exclude_special_tokens_from_reconstruction": True,
        **{f"compute_{name}": True for name in (*families, *per_latent)},
    }


def _number(result: Result, name: str) -> float | int:
    value = result.details["compatible"].get(name, {}).get("value")
    if value is None:
        return UNDEFINED
    return int(value) if name in COUNTS else value


def _details(result: Result) -> list[dict[str, float | int]]:
    """One record per latent, rounded as SAEBench does; what the dictionary does not have is
    undefined.
    """
    latents = result.details["latents"]
    n = len(latents["density"])
    columns = {name: _rounded(latents[ours], n) for name, ours in DETAILS.items()}
    return [{"index": i} | {name: column[i] for name, column in columns.items()} for i in range(n)]


def _rounded(values: Sequence[float | None] | None, n: int) -> list[float | int]:
    """The float32 numbers that `values` are the shortest decimal form of, rounded."""
    if values is None:
        return [UNDEFINED] * n
    single = torch.tensor([0.0 if v is None else v for v in values], dtype=torch.float32).tolist()
    pairs = zip(values, single, strict=True)
    return [UNDEFINED if value is None else round(v, DECIMALS) for value, v in pairs]
