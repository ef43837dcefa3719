"""How the page names and explains every metric."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How the page names and explains a metric."""

    label: str
    better: str  # higher, lower or empty
    meaning: str
    # shown in the summary table; the others stand in the table of all metrics
    headline: bool = False


UP, DOWN = "higher", "lower"
METRICS: dict[str, Metric] = {
    "l0": Metric(
        "L0",
        "",
        "mean number of latents active on a token: the sparsity at which everything is compared",
        True,
    ),
    "explained_variance": Metric(
        "Explained variance",
        "higher",
        "share of the activations' variance that the reconstruction keeps; 1 is perfect",
        True,
    ),
    "ce_loss_score": Metric(
        "CE recovered",
        "higher",
        "share of the language model's loss that survives when the reconstruction replaces the "
        "activations; "
        "0 is zero-ablation, 1 is the untouched model",
        True,
    ),
    "kl_div_score": Metric(
        "KL recovered",
        "higher",
        "the same for the divergence between the model's predictions with and without the SAE",
        True,
    ),
    "cossim": Metric("Cosine", "higher", "cosine between activation and reconstruction", True),
    "dead": Metric(
        "Dead", "lower", "share of latents that were never active on the evaluation text", True
    ),
    "frac_alive": Metric(
        "Alive", "higher", "share of latents that were active on the evaluation text", True
    ),
    "mse": Metric(
        "MSE",
        "lower",
        "squared error of the reconstruction, summed over dimensions, mean over tokens",
    ),
    "explained_variance_legacy": Metric(
        "Explained variance (legacy)", "higher", "mean over tokens of 1 - error / variance"
    ),
    "ce_loss_without_sae": Metric("CE, untouched model", "", "nats per token"),
    "ce_loss_with_sae": Metric("CE with the SAE", "lower", "nats per token"),
    "ce_loss_with_ablation": Metric("CE, zero-ablation", "", "nats per token"),
    "kl_div_with_sae": Metric("KL with the SAE", "lower", "nats per token"),
    "kl_div_with_ablation": Metric("KL, zero-ablation", "", "nats per token"),
    "ce_loss_score_mean": Metric(
        "CE recovered (mean-ablation)", "higher", "CE recovered where 0 is the mean activation"
    ),
    "kl_div_score_mean": Metric(
        "KL recovered (mean-ablation)", "higher", "KL recovered where 0 is the mean activation"
    ),
    "l1": Metric("L1", "", "mean sum of the active latents' values"),
    "l2_ratio": Metric(
        "Norm ratio",
        "",
        "norm of the reconstruction over norm of the activation; below 1 is shrinkage",
    ),
    "relative_reconstruction_bias": Metric(
        "Reconstruction bias", "", "1 is unbiased; below 1 is shrinkage"
    ),
    "freq_over_1_percent": Metric(
        "Active on > 1 %", "", "share of latents active on more than 1 % of the tokens"
    ),
    "freq_over_10_percent": Metric(
        "Active on > 10 %", "", "share of latents active on more than 10 % of the tokens"
    ),
    "average_max_decoder_cosine_sim": Metric(
        "Nearest decoder row", "", "mean cosine of a latent's nearest other decoder row"
    ),
    "average_max_encoder_cosine_sim": Metric(
        "Nearest encoder row", "", "the same of the encoder's directions"
    ),
}
METRICS["cosine"] = METRICS["cossim"]
METRICS["dead_share"] = METRICS["dead"]

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
TYPES = {  # of intervention
    "zero": "a latent set to 0",
    "mean": "a latent set to its mean",
    "resample": "a latent given its code on another token",
    "noise": "noise added to a latent",
    "steer": "a latent added where it is silent",
}
_SIGNALS = {
    "fisher": "the Fisher estimate of NCES",
    "activity": "activity alone, without an intervention",
    "norm": "the decoder's norm alone, without an intervention",
    "probe": "correlation with the model's predictions, without an intervention",
}
_AGAINST = {
    "control": "directions of equal length",
    "others": "other latents, scaled to equal length",
}


def _of_type(name: str, change: str) -> dict[str, Metric]:
    nces, own = f"NCES, {name}", f"Consistency, {name}"
    found = {
        f"nces_{name}": Metric(
            nces,
            UP,
            f"(effect - control) / (effect + control), {change}; mean by activity, in [-1, 1]",
        ),
        f"nces_{name}_median": Metric(
            f"{nces}, median", UP, f"NCES of the median live latent, {change}"
        ),
        f"nces_{name}_share_positive": Metric(
            f"{nces}, above 0", UP, "share of live latents whose interval lies above 0"
        ),
        f"nces_auroc_{name}": Metric(
            f"AUROC, {name}", UP, f"how well NCES tells causal latents from inert ones, {change}"
        ),
        f"consistency_{name}": Metric(
            own, UP, f"nats that a concept's latents move its tokens by, {change}"
        ),
    }
    for key, whom in _AGAINST.items():
        found[f"consistency_{name}_above_{key}"] = Metric(
            f"{own}, above {key}", UP, f"the same less that of {whom}"
        )
        label = f"{own}, share above {key}"
        found[f"consistency_{name}_share_above_{key}"] = Metric(
            label, UP, f"share of concepts that lead {whom}, by interval"
        )
    return found


EFFECT_METRICS: dict[str, Metric] = {
    "causal_mass": Metric(
        "Causal mass",
        UP,
        "activity times effect of setting a latent to 0, summed over latents; nats a token",
    ),
    "causal_mass_fisher": Metric(
        "Causal mass (estimate)", UP, "the same from the Fisher estimate, over all live latents"
    ),
    "nces_fisher": Metric(
        "NCES (estimate)",
        UP,
        "NCES from the Fisher estimate, mean by activity over all live latents",
    ),
    "nces_fisher_spearman": Metric(
        "Estimate's ranks", UP, "rank correlation of estimated and measured effects"
    ),
    "nces_agreement": Metric(
        "NCES agreement", UP, "mean rank correlation of NCES between types of intervention"
    ),
    "nces_excluded": Metric(
        "Too rare to measure",
        DOWN,
        "share of latents active on fewer than 30 tokens: in no other score",
    ),
    "nces_spearman": Metric(
        "Effect ranks",
        UP,
        "rank correlation of estimated and measured effects, within causal latents",
    ),
    "nces_labelled": Metric(
        "Labelled latents", "", "latents matched to one feature, of known kind"
    ),
    "consistency_all_types": Metric(
        "Consistency, all types", UP, "share of concepts that lead both in all types"
    ),
    "consistency_agreement": Metric(
        "Consistency agreement", UP, "mean rank correlation of the leads between types"
    ),
    "consistency_equal_signs": Metric(
        "Equal signs", UP, "share of concepts for which two types' leads have one sign"
    ),
    "consistency_elsewhere": Metric(
        "Consistency elsewhere", "", "effect where the concept holds and another token is next"
    ),
    "consistency_by_chance": Metric(
        "Consistency by chance", "", "lead of latents chosen by shuffled labels; above 0: a fault"
    ),
    "consistency_coverage": Metric(
        "Coverage", "", "share of decided positions on which a latent of the concept is active"
    ),
    "consistency_undefined": Metric(
        "Undefined concepts", DOWN, "share of concepts whose latents could not be measured"
    ),
}
for _name, _change in TYPES.items():
    EFFECT_METRICS |= _of_type(_name, _change)
for _name, _signal in _SIGNALS.items():
    _better = UP if _name == "fisher" else ""
    EFFECT_METRICS[f"nces_auroc_{_name}"] = Metric(
        f"AUROC, {_name}", _better, f"how well {_signal} tells causal from inert"
    )

BATCH = "_batch"  # ends the key of the same metric under batch selection


def metric(name: str) -> Metric:
    """Label and meaning of a metric of a language model's SAE; an unknown one is shown under its
    own name.
    """
    return METRICS.get(name) or world_metric(name)


def world_metric(name: str) -> Metric:
    """Label and meaning of a metric in a synthetic world or of an intervention; `<key>_batch` is
    explained by `<key>`.
    """
    known = WORLD_METRICS.get(name) or METRICS.get(name) or EFFECT_METRICS.get(name)
    base = (METRICS | WORLD_METRICS | EFFECT_METRICS).get(name.removesuffix(BATCH))
    if known is None and base is not None:
        known = Metric(
            f"{base.label} (batch)",
            base.better,
            f"{base.meaning}; codes under batch selection, not the threshold",
        )
    return known or Metric(name.replace("_", " "), "", "")
