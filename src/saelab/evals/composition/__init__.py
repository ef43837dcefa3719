"""Composition: parents, children and the edges between them."""

from saelab.evals.common.world import world_evaluation
from saelab.evals.composition import measure
from saelab.evals.result import Metric
from saelab.synth.worlds.s2_tree import TreeProcess

METRICS = (
    Metric(
        "parent_fn",
        "Parent misses",
        "lower",
        "Share of a parent's firings beside a child on which its latent is silent: absorption.",
        headline=1,
    ),
    Metric(
        "absorption_excess",
        "Absorption excess",
        "lower",
        "Parent misses beside a child minus parent misses without one; from -1 to 1.",
    ),
    Metric(
        "parent_precision",
        "Parent precision",
        "higher",
        "Share of the firings of a parent's latent on which the parent is there, mean over "
        "parents.",
    ),
    Metric(
        "coverage_f1",
        "Edge F1 (coverage)",
        "higher",
        "F1 of the tree's edges, drawn where one latent's firings cover another's; the "
        "threshold is chosen on the truth, which flatters every dictionary.",
        headline=2,
    ),
    Metric(
        "edge_f1",
        "Edge F1 (learned)",
        "higher",
        "F1 of the tree's edges in the dictionary's own tree, where it has one.",
    ),
    Metric(
        "edge_f1_lasso",
        "Edge F1 (read off)",
        "higher",
        "F1 of the tree's edges that a lasso reads from the codes without labels.",
    ),
    Metric(
        "placement",
        "Placement",
        "higher",
        "Share of the first block's latents that point along a parent.",
        headline=3,
    ),
    Metric(
        "promotions",
        "Promotions",
        "neither",
        "Number of latents that training moved into the first block.",
    ),
    Metric(
        "removal",
        "Removal",
        "higher",
        "Share of a parent's subtree that ablating latents chosen with 8 labelled activations "
        "takes away; 1 is all of it.",
    ),
    Metric(
        "collateral",
        "Collateral",
        "lower",
        "What the same ablation changes elsewhere, as a share of the subtree's energy.",
    ),
    Metric(
        "removal_64",
        "Removal, 64 labels",
        "higher",
        "Removal by latents chosen with 64 labelled activations.",
    ),
    Metric(
        "collateral_64",
        "Collateral, 64 labels",
        "lower",
        "What that ablation changes elsewhere, as a share of the subtree's energy.",
    ),
)
EVALUATION = world_evaluation(
    METRICS,
    measure.prepare,
    measure.measure,
    what="tree of features",
    reads=(TreeProcess,),
    title="Parents and children",
)
