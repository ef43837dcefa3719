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


def metric(name: str) -> Metric:
    """Label and meaning of a metric; an unknown one is shown under its own name."""
    return METRICS.get(name, Metric(name.replace("_", " "), "", ""))


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
