"""How the page explains metrics of worlds, until their evaluations say so themselves."""

from saelab.evals import BATCH, metric_of
from saelab.evals.nces.metrics import CHANGE
from saelab.evals.result import Metric
from saelab.types import Better

UP: Better = "higher"
DOWN: Better = "lower"
NO: Better = "neither"
_SIGNALS = {
    "fisher": "the Fisher estimate of NCES",
    "activity": "activity alone, without an intervention",
    "norm": "the decoder's norm alone, without an intervention",
    "probe": "correlation with the model's predictions, without an intervention",
}
_METRICS = (  # in a synthetic world; a feature is a true one
    Metric("mcc", "MCC", UP, "mean |cosine| of features and latents, matched one to one"),
    Metric("precision", "Precision", UP, "a latent as a detector of its nearest feature: share of its firings that are right"),
    Metric("recall", "Recall", UP, "a latent as a detector of its nearest feature: share of the feature's firings it sees"),
    Metric("f1", "F1", UP, "harmonic mean of a latent's precision and recall, mean over all latents; a dead one counts 0"),
    Metric("accuracy", "Accuracy", UP, "share of activations on which a latent and its nearest feature agree"),
    Metric("uniqueness", "Uniqueness", UP, "distinct features that are some latent's nearest, per latent"),
    Metric("shrinkage", "Norm ratio", NO, "norm of the reconstruction over norm of the activation; below 1 is shrinkage"),
    Metric("dead", "Dead", DOWN, "share of latents that were never active on the held-out activations"),
    Metric("causal_mcc", "Causal MCC", UP, "mean |cosine| of the features that the world's model reads, with their latents"),
    Metric("inert_mcc", "Inert MCC", NO, "the same of the features that the model never reads"),
    Metric("recovered_share", "Causal recovered", UP, "share of the causal features whose latent has |cosine| above .9"),
    Metric("kl_recovered", "KL recovered", UP, "share of an ablation's divergence that the reconstruction avoids; 1 is all"),
    Metric("parent_fn", "Parent misses", DOWN, "share of a parent's firings beside a child that its latent misses: absorption"),
    Metric("absorption_excess", "Absorption excess", DOWN, "parent misses beside a child minus those without one"),
    Metric("parent_precision", "Parent precision", UP, "share of firings of a parent's latent on which the parent is there"),
    Metric("coverage_f1", "Edge F1 (coverage)", UP, "F1 of the tree's edges, drawn where one latent's firings cover another's"),
    Metric("edge_f1", "Edge F1 (learned)", UP, "F1 of the tree's edges in the dictionary's own tree"),
    Metric("edge_f1_lasso", "Edge F1 (read off)", UP, "F1 of the tree's edges that a lasso on the codes gives without labels"),
    Metric("placement", "Placement", UP, "share of the first block's latents that point along a parent"),
    Metric("promotions", "Promotions", NO, "latents that training moved into the coarse block"),
    Metric("removal", "Removal", UP, "share of a subtree that ablating latents chosen with 8 labels takes away"),
    Metric("collateral", "Collateral", DOWN, "what the same ablation changes elsewhere"),
    Metric("removal_64", "Removal, 64 labels", UP, "removal by latents chosen with 64 labels"),
    Metric("collateral_64", "Collateral, 64 labels", DOWN, "what that ablation changes elsewhere"),
    Metric("slow_recall", "Slow recall", UP, "share of the slow features that some live latent has with |cosine| above .8"),
    Metric("fast_recall", "Fast recall", NO, "the same of the fast features"),
    Metric("purity", "Purity", UP, "slow features among slow and fast ones in the slow block; .5 is chance"),
    Metric("purity_sorted", "Purity, sorted", UP, "purity after sorting latents by autocorrelation: easy for any dictionary"),
    Metric("occupancy", "Occupancy", UP, "distinct slow features in the slow block, per latent of the block"),
    Metric("position_features_in_slow_block", "Position in slow block", DOWN, "position signals that the slow block tells"),
    Metric("mcc_slow", "MCC, slow", UP, "MCC of the slow features alone"),
    Metric("mcc_fast", "MCC, fast", NO, "MCC of the fast features alone"),
    Metric("hidden_correlation", "Hidden correlation", UP, "correlation of slow latents with their feature's hidden state"),
    Metric("hidden_correlation_smoothed", "Hidden correlation, smoothed", UP, "the same after smoothing the codes in time"),
    Metric("mig", "MIG", UP, "gap between the best and second-best latent's information on a factor's value; 1 is one-hot"),
    Metric("mig_ab", "MIG, A and B", UP, "MIG of the two correlated factors alone: composites show here"),
    Metric("sap", "SAP", UP, "gap between the best and second-best latent's prediction of a factor's value"),
    Metric("dci_d", "DCI-D", UP, "how far each latent matters for one factor's value only"),
    Metric("factor_vae", "FactorVAE", UP, "accuracy of naming the fixed factor by the latent that varies least"),
    Metric("composites", "Composites", DOWN, "latents that stand for a value of A and a value of B at once"),
    Metric("composite_share", "Composite share", DOWN, "composites among the latents that stand for values of A or B"),
    Metric("scr", "SCR", UP, "share of the accuracy lost to the spurious factor that ablating its latents wins back"),
    Metric("scr_threshold", "SCR, refit threshold", UP, "the same with the probe's threshold fitted again after the ablation"),
    Metric("leak_linear", "Leak, linear", DOWN, "a linear probe's accuracy on the spurious factor, without its bank"),
    Metric("leak_mlp", "Leak, MLP", DOWN, "the same of a small network"),
    Metric("task_accuracy", "Task accuracy", UP, "accuracy on the task over that of a clean probe"),
    Metric("worst_group", "Worst group", UP, "task accuracy in the worst of the four cells of task and spurious factor"),
    Metric("spurious_cos", "Spurious cosine", DOWN, "|cosine| of task latent and spurious direction, less the true .3"),
    Metric("nces_spearman", "Effect ranks", UP, "rank correlation of estimated and measured effects, within causal latents"),
    Metric("nces_labelled", "Labelled latents", NO, "latents matched to one feature, of known kind"),
    *(
        Metric(f"nces_auroc_{name}", f"AUROC, {name}", UP, f"how well NCES tells causal latents from inert ones, {change}")
        for name, change in CHANGE.items()
    ),
    *(
        Metric(f"nces_auroc_{name}", f"AUROC, {name}", UP if name == "fisher" else NO, f"how well {signal} tells causal from inert")
        for name, signal in _SIGNALS.items()
    ),
)  # fmt: skip
WORLD_METRICS = {metric.key: metric for metric in _METRICS}


def world_metric(key: str) -> Metric:
    """Label and meaning of a metric in a world; `<key>_batch` is explained by `<key>`."""
    own = WORLD_METRICS.get(key)
    base = WORLD_METRICS.get(key.removesuffix(BATCH))
    if own is None and base is not None:
        meaning = f"{base.meaning}; codes under batch selection, not the threshold"
        own = Metric(key, f"{base.label} (batch)", base.better, meaning)
    return own or metric_of(key)
