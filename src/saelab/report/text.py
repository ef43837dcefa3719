"""Numbers, names and hostile strings as html text."""

import html
from dataclasses import dataclass
from typing import Any

from saelab.report.read import number

MISSING = '<span class="missing">not measured</span>'


@dataclass(frozen=True)
class Metric:
    """How the page names and explains a metric."""

    label: str
    better: str  # higher, lower or empty
    meaning: str
    headline: bool = False  # shown in the summary table; the others stand in the table of all metrics


METRICS: dict[str, Metric] = {
    "l0": Metric("L0", "", "mean number of latents active on a token: the sparsity at which everything is compared", True),
    "explained_variance": Metric(
        "Explained variance", "higher", "share of the activations' variance that the reconstruction keeps; 1 is perfect", True
    ),
    "ce_loss_score": Metric(
        "CE recovered",
        "higher",
        "share of the language model's loss that survives when the reconstruction replaces the activations; "
        "0 is zero-ablation, 1 is the untouched model",
        True,
    ),
    "kl_div_score": Metric(
        "KL recovered", "higher", "the same for the divergence between the model's predictions with and without the SAE", True
    ),
    "cossim": Metric("Cosine", "higher", "cosine between activation and reconstruction", True),
    "dead": Metric("Dead", "lower", "share of latents that were never active on the evaluation text", True),
    "frac_alive": Metric("Alive", "higher", "share of latents that were active on the evaluation text", True),
    "mse": Metric("MSE", "lower", "squared error of the reconstruction, summed over dimensions, mean over tokens"),
    "explained_variance_legacy": Metric("Explained variance (legacy)", "higher", "mean over tokens of 1 - error / variance"),
    "ce_loss_without_sae": Metric("CE, untouched model", "", "nats per token"),
    "ce_loss_with_sae": Metric("CE with the SAE", "lower", "nats per token"),
    "ce_loss_with_ablation": Metric("CE, zero-ablation", "", "nats per token"),
    "kl_div_with_sae": Metric("KL with the SAE", "lower", "nats per token"),
    "kl_div_with_ablation": Metric("KL, zero-ablation", "", "nats per token"),
    "ce_loss_score_mean": Metric("CE recovered (mean-ablation)", "higher", "CE recovered where 0 is the mean activation"),
    "kl_div_score_mean": Metric("KL recovered (mean-ablation)", "higher", "KL recovered where 0 is the mean activation"),
    "l1": Metric("L1", "", "mean sum of the active latents' values"),
    "l2_ratio": Metric("Norm ratio", "", "norm of the reconstruction over norm of the activation; below 1 is shrinkage"),
    "relative_reconstruction_bias": Metric("Reconstruction bias", "", "1 is unbiased; below 1 is shrinkage"),
}
METRICS["cosine"] = METRICS["cossim"]
METRICS["dead_share"] = METRICS["dead"]

UP, DOWN = "higher", "lower"
WORLD_METRICS: dict[str, Metric] = {  # in a synthetic world; a feature is a true one
    "mcc": Metric("MCC", UP, "mean |cosine| of features and latents, matched one to one"),
    "precision": Metric("Precision", UP, "a latent as a detector of its nearest feature: share of its firings that are right"),
    "recall": Metric("Recall", UP, "a latent as a detector of its nearest feature: share of the feature's firings it sees"),
    "f1": Metric("F1", UP, "harmonic mean of a latent's precision and recall, mean over all latents; a dead one counts 0"),
    "accuracy": Metric("Accuracy", UP, "share of activations on which a latent and its nearest feature agree"),
    "uniqueness": Metric("Uniqueness", UP, "distinct features that are some latent's nearest, per latent"),
    "explained_variance": METRICS["explained_variance"],
    "shrinkage": Metric("Norm ratio", "", "norm of the reconstruction over norm of the activation; below 1 is shrinkage"),
    "dead": Metric("Dead", DOWN, "share of latents that were never active on the held-out activations"),
    "causal_mcc": Metric("Causal MCC", UP, "mean |cosine| of the features that the world's model reads, with their latents"),
    "inert_mcc": Metric("Inert MCC", "", "the same of the features that the model never reads"),
    "recovered_share": Metric("Causal recovered", UP, "share of the causal features whose latent has |cosine| above .9"),
    "kl_recovered": Metric("KL recovered", UP, "share of an ablation's divergence that the reconstruction avoids; 1 is all"),
    "parent_fn": Metric("Parent misses", DOWN, "share of a parent's firings beside a child that its latent misses: absorption"),
    "absorption_excess": Metric("Absorption excess", DOWN, "parent misses beside a child minus those without one"),
    "parent_precision": Metric("Parent precision", UP, "share of firings of a parent's latent on which the parent is there"),
    "coverage_f1": Metric("Edge F1 (coverage)", UP, "F1 of the tree's edges, drawn where one latent's firings cover another's"),
    "edge_f1": Metric("Edge F1 (learned)", UP, "F1 of the tree's edges in the dictionary's own tree"),
    "edge_f1_lasso": Metric("Edge F1 (read off)", UP, "F1 of the tree's edges that a lasso on the codes gives without labels"),
    "placement": Metric("Placement", UP, "share of the first block's latents that point along a parent"),
    "promotions": Metric("Promotions", "", "latents that training moved into the coarse block"),
    "removal": Metric("Removal", UP, "share of a subtree that ablating latents chosen with 8 labels takes away"),
    "collateral": Metric("Collateral", DOWN, "what the same ablation changes elsewhere"),
    "removal_64": Metric("Removal, 64 labels", UP, "removal by latents chosen with 64 labels"),
    "collateral_64": Metric("Collateral, 64 labels", DOWN, "what that ablation changes elsewhere"),
    "slow_recall": Metric("Slow recall", UP, "share of the slow features that some live latent has with |cosine| above .8"),
    "fast_recall": Metric("Fast recall", "", "the same of the fast features"),
    "purity": Metric("Purity", UP, "slow features among slow and fast ones in the slow block; .5 is chance"),
    "purity_sorted": Metric("Purity, sorted", UP, "purity after sorting latents by autocorrelation: easy for any dictionary"),
    "occupancy": Metric("Occupancy", UP, "distinct slow features in the slow block, per latent of the block"),
    "position_features_in_slow_block": Metric("Position in slow block", DOWN, "position signals that the slow block tells"),
    "mcc_slow": Metric("MCC, slow", UP, "MCC of the slow features alone"),
    "mcc_fast": Metric("MCC, fast", "", "MCC of the fast features alone"),
    "hidden_correlation": Metric("Hidden correlation", UP, "correlation of slow latents with their feature's hidden state"),
    "hidden_correlation_smoothed": Metric("Hidden correlation, smoothed", UP, "the same after smoothing the codes in time"),
    "mig": Metric("MIG", UP, "gap between the best and second-best latent's information on a factor's value; 1 is one-hot"),
    "mig_ab": Metric("MIG, A and B", UP, "MIG of the two correlated factors alone: composites show here"),
    "sap": Metric("SAP", UP, "gap between the best and second-best latent's prediction of a factor's value"),
    "dci_d": Metric("DCI-D", UP, "how far each latent matters for one factor's value only"),
    "factor_vae": Metric("FactorVAE", UP, "accuracy of naming the fixed factor by the latent that varies least"),
    "composites": Metric("Composites", DOWN, "latents that stand for a value of A and a value of B at once"),
    "composite_share": Metric("Composite share", DOWN, "composites among the latents that stand for values of A or B"),
    "scr": Metric("SCR", UP, "share of the accuracy lost to the spurious factor that ablating its latents wins back"),
    "scr_threshold": Metric("SCR, refit threshold", UP, "the same with the probe's threshold fitted again after the ablation"),
    "leak_linear": Metric("Leak, linear", DOWN, "a linear probe's accuracy on the spurious factor, without its bank"),
    "leak_mlp": Metric("Leak, MLP", DOWN, "the same of a small network"),
    "task_accuracy": Metric("Task accuracy", UP, "accuracy on the task over that of a clean probe"),
    "worst_group": Metric("Worst group", UP, "task accuracy in the worst of the four cells of task and spurious factor"),
    "spurious_cos": Metric("Spurious cosine", DOWN, "|cosine| of task latent and spurious direction, less the true .3"),
}  # fmt: skip
BATCH = "_batch"  # ends the key of the same metric under batch selection


def metric(name: str) -> Metric:
    """Label and meaning of a metric of a language model's SAE; an unknown one is shown under its own name."""
    return METRICS.get(name) or world_metric(name)


def world_metric(name: str) -> Metric:
    """Label and meaning of a metric in a synthetic world; `<key>_batch` is explained by `<key>`."""
    known = WORLD_METRICS.get(name) or METRICS.get(name)
    base = WORLD_METRICS.get(name.removesuffix(BATCH))
    if known is None and base is not None:
        known = Metric(f"{base.label} (batch)", base.better, f"{base.meaning}; codes under batch selection, not the threshold")
    return known or Metric(name.replace("_", " "), "", "")


def esc(value: Any) -> str:
    """`value` as text, safe in html content and in quoted attributes."""
    return html.escape(visible(str(value)), quote=True)


def visible(text: str) -> str:
    """Control characters other than newline and tab as their Unicode pictures, so that none is lost or acts."""
    return "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in text)


def show(value: float) -> str:
    """A finite number at a precision that fits its size, with a true minus sign."""
    size = abs(value)
    if value == int(value) and (size >= 1000 or value == 0):
        text = f"{value:,.0f}"
    elif size >= 1000:
        text = f"{value:,.1f}"
    elif size >= 10:
        text = f"{value:.2f}"
    elif size >= 1:
        text = f"{value:.3f}"
    else:
        text = f"{value:.4f}" if size >= 0.001 else f"{value:.5f}" if size >= 0.00005 else f"{value:.2e}"
    return text.replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    """A difference: `show` with the sign always there."""
    return ("+" if value > 0 else "") + show(value)


def interval(low: Any, high: Any) -> str:
    """`[low, high]`, or words when a bound is missing."""
    a, b = number(low), number(high)
    return (
        '<span class="ci">no interval</span>' if a is None or b is None else f'<span class="ci">[{show(a)}, {show(b)}]</span>'
    )


def undefined(reason: Any) -> str:
    """`undefined: reason`, the only way a value without a number is shown."""
    return f'<span class="undefined">undefined: {esc(reason or "no reason was recorded")}</span>'


def score(entry: dict[str, Any] | None) -> str:
    """A score with its interval; undefined with its reason; or `not measured`."""
    if entry is None:
        return MISSING
    value = number(entry.get("value"))
    if value is None:
        return undefined(entry.get("reason"))
    return f'<span class="value">{show(value)}</span> {interval(entry.get("low"), entry.get("high"))}'


def fact(value: Any) -> str:
    """A configuration value or recorded fact as text."""
    if value is None or value == "":
        return '<span class="missing">not recorded</span>'
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        known = number(value)
        return (
            undefined("not a finite number") if known is None else f"{known:,.0f}" if known == int(known) else f"{known:,.6g}"
        )
    if isinstance(value, list):
        return ", ".join(fact(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{esc(key)} {fact(item)}" for key, item in value.items()) or "none"
    return esc(value)
