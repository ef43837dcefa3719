"""The rows of tables on worlds, as data: which ones, their own numbers, what they must show.

The one place in the package, beside the tables themselves, that calls variants and worlds by name;
the command `saelab synth` needs it installed.
"""

from collections.abc import Mapping

from saelab.experiments.plan import Expectation

COMPARATOR = "batch_topk"  # what other rows are compared with, where it is among them
BASELINES = ("standard", "standard_trimmed", "batch_topk", "jump_relu", "matryoshka", "frozen")

# one metric, more of it, nothing else; KL as strong as the metric
_CAUSAL: Mapping[str, Mapping[str, float]] = {
    "causal": {
        "weight": 4,
        "clusters": 1,
        "rows": 20_000,
        "refine": 0,
        "finetune_weight": 4,
        "restart": 1,
    },
    "kl_finetune_25": {"weight": 4, "restart": 1},
    "kl_finetune_5": {"weight": 4, "restart": 1},
    "end_to_end": {"weight": 4},
}


def _temporal(block: float) -> Mapping[str, Mapping[str, float]]:
    """The slow block has as many latents as there are slow features and predicts by the decoder."""
    predicting = {"weight": 3, "block": block, "untied": 0}
    return {
        "temporal": predicting,
        "temporal_on_frontier": predicting,
        "t_sae": {"block": block},
    }


# world -> variant -> its settings there, where they differ from the variant's own
OWN: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    **dict.fromkeys(("s1", "s1b", "s1d"), _CAUSAL),
    **dict.fromkeys(("s3", "s3_hard", "s3_null"), _temporal(20 / 48)),
    **dict.fromkeys(("s3c", "s3c_hard", "s3c_null"), _temporal(20 / 24)),
}


_Row = tuple[str, str, float, float, str]
# world, metric, lowest and highest mean of the comparator, and what is wrong outside of them
_MUST_SHOW: tuple[_Row, ...] = (
    ("s1", "causal_mcc", 0, 0.15, "reconstruction alone already finds the causal features"),
    (
        "s1",
        "kl_recovered",
        -0.1,
        0.1,
        "reconstruction alone already restores the model's predictions",
    ),
    (
        "s1b",
        "recovered_share",
        0,
        0.15,
        "reconstruction alone tells causal features from their copies",
    ),
    ("s1d", "kl_recovered", 0.3, 0.8, "reconstruction alone loses or restores nearly everything"),
    ("s2", "parent_fn", 0.08, 0.6, "there is no absorption to cure"),
    ("s2_full", "parent_fn", 0.08, 0.6, "there is no absorption to cure"),
    ("s2_null", "coverage_f1", 0, 0.15, "edges are found where there are none"),
    (
        "s3",
        "purity_sorted",
        0.9,
        1.0,
        "Persistence cannot be read off the codes: slow and fast are alike.",
    ),
    ("s3_null", "purity_sorted", 0.25, 0.75, "Sorting finds persistence where there is none."),
    (
        "s3c",
        "slow_recall",
        0.3,
        0.8,
        "No capacity pressure: an ordinary dictionary keeps nearly all slow features, or "
        "nearly none.",
    ),
    (
        "s4",
        "mig_ab",
        0.3,
        0.7,
        "a plain SAE keeps A and B apart, or finds neither: no composites to remove",
    ),
    (
        "s5",
        "spurious_cos",
        0.3,
        0.7,
        "the budget leaves room for both factors: nothing forces the mixture",
    ),
    (
        "s5b",
        "leak_linear",
        0.55,
        0.9,
        "three latents hold all of the spread factor: nothing is left to keep out",
    ),
    (
        "s5_null",
        "spurious_cos",
        -0.3,
        0.2,
        "factors that have nothing to do with each other are mixed",
    ),
)
# world -> where a baseline must land, else the world does not test what it should
SANITY: Mapping[str, tuple[Expectation, ...]] = {
    world: tuple(Expectation(COMPARATOR, *row[1:]) for row in _MUST_SHOW if row[0] == world)
    for world in dict.fromkeys(row[0] for row in _MUST_SHOW)
}
