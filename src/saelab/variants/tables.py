"""The three tables: bases (an SAE with its objective), parts (what an idea adds to any base), and
rows (names of compositions of both, as data).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from saelab.numbers import Setting, settings_in
from saelab.terms.base import Variant
from saelab.variants.baselines import (
    batch_topk,
    frozen,
    gated,
    jump_relu,
    matryoshka,
    p_anneal,
    standard,
    standard_trimmed,
    topk,
)
from saelab.variants.causal import (
    with_kl,
    with_kl_finetune,
    with_metric,
    with_price,
    with_samples,
)
from saelab.variants.frontier import frontier
from saelab.variants.temporal import (
    with_lag_correlation,
    with_position_penalty,
    with_prediction,
    with_smoothness,
    with_token_contrast,
)

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Part:
    """What an idea adds to any base: terms, events, needs or a batch. Off, it is the base itself.

    `join` takes the base and the part's settings; `fixed` is what tells a null from the part whose
    control it is. `term`: of the loss; two parts of one term exclude each other.
    """

    join: Callable[..., Variant]
    term: str
    meaning: str
    fixed: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Mapping[str, Setting]:
        """The numbers it can be tuned by; 0 for `weight` switches it off."""
        return settings_in(self.join)


@dataclass(frozen=True)
class Row:
    """A composition with a name of its own.

    `short` are its own names of parts' settings, `(part, setting)` each; `nulls` are switches, each
    with the part that then takes the place of the one whose null it is.
    """

    base: str
    meaning: str
    settings: Numbers = field(default_factory=dict)
    parts: Mapping[str, Numbers] = field(default_factory=dict)
    short: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    nulls: Mapping[str, str] = field(default_factory=dict)


BASES: Mapping[str, Callable[..., Variant]] = {
    "standard": standard,
    "standard_trimmed": standard_trimmed,
    "p_anneal": p_anneal,
    "gated": gated,
    "jump_relu": jump_relu,
    "topk": topk,
    "batch_topk": batch_topk,
    "matryoshka": matryoshka,
    "frontier": frontier,
    "frozen": frozen,
}

# joined in this order, whatever the order they are written in
PARTS: Mapping[str, Part] = {
    "metric": Part(with_metric, "metric", "errors also pay by the Fisher metric of the model"),
    "rotated_metric": Part(
        with_metric, "metric", "null: the metric through a random rotation", {"null": "rotated"}
    ),
    "isotropic_metric": Part(
        with_metric, "metric", "null: the identity for a metric", {"null": "isotropic"}
    ),
    "shuffled_metric": Part(
        with_metric, "metric", "null: the metric of another x's cluster", {"null": "shuffled"}
    ),
    "labels_metric": Part(
        with_metric, "metric", "control: labels of the text, not of the model", {"null": "labels"}
    ),
    "sampled_metric": Part(
        with_samples, "metric", "control: one gradient for every position in every step"
    ),
    "kl": Part(with_kl, "kl", "errors also pay by the exact KL of the model, in every step"),
    "price": Part(with_price, "nces", "latents pay for having no effect on the model"),
    "kl_finetune": Part(with_kl_finetune, "kl", "a last phase of training with exact KL"),
    "xpred": Part(
        with_prediction, "prediction", "a slow block predicts activations further on and back"
    ),
    "permuted_xpred": Part(
        with_prediction,
        "prediction",
        "null: it predicts those of other texts",
        {"null": "permuted"},
    ),
    "smooth": Part(with_smoothness, "smoothness", "slow codes pay for changing in a window"),
    "lag_correlation": Part(
        with_lag_correlation, "lag_correlation", "slow codes pay for not correlating along the text"
    ),
    "position_penalty": Part(
        with_position_penalty, "position", "slow codes pay for telling the position"
    ),
    "token_contrast": Part(
        with_token_contrast, "token_contrast", "slow codes tell the next token, as in T-SAE"
    ),
}

_METRIC = {name: ("metric", name) for name in ("weight", "ramp", "clusters", "rows")}
_FINETUNE = {
    "share": ("kl_finetune", "share"),
    "weight": ("kl_finetune", "weight"),
    "restart": ("kl_finetune", "restart"),
    "kl_share": ("kl_finetune", "windows"),
}
_XPRED = {
    name: ("xpred", name) for name in ("weight", "block", "length", "every", "reach", "untied")
}
_PRICE = ("updates", "latents", "zero", "mean", "resample", "noise", "steer")
_SMALL = {"metric": {"weight": 4, "clusters": 1, "rows": 20_000}}

ROWS: Mapping[str, Row] = {
    "causal": Row(
        "batch_topk",
        "the metric and one refinement step: the lowest KL of a language model",
        {"refine": 0.15},
        {"metric": {}, "price": {"weight": 0}, "kl_finetune": {"share": 0}},
        short={
            **_METRIC,
            "rank": ("metric", "rank"),
            "price": ("price", "weight"),
            **{f"price_{name}": ("price", name) for name in _PRICE},
            "finetune": ("kl_finetune", "share"),
            "finetune_weight": ("kl_finetune", "weight"),
            "restart": ("kl_finetune", "restart"),
            "kl_share": ("kl_finetune", "windows"),
        },
        nulls={
            "rotate": "rotated_metric",
            "isotropic": "isotropic_metric",
            "shuffle": "shuffled_metric",
            "data_labels": "labels_metric",
            "per_token": "sampled_metric",
        },
    ),
    "causal_as_stated": Row(
        "standard",
        "the causal idea in its first wording: an L1 SAE and a small price",
        parts={"price": {"weight": 0.01, "mean": 0, "steer": 1}},
        short={"price": ("price", "weight")},
    ),
    "causal_on_standard": Row(
        "standard",
        "the metric on an L1 SAE",
        parts={**_SMALL, "price": {"weight": 0}},
        short={**_METRIC, "price": ("price", "weight")},
    ),
    "causal_on_frontier": Row("frontier", "the metric on frontier", parts=_SMALL, short=_METRIC),
    "end_to_end": Row(
        "batch_topk",
        "exact KL in every step",
        parts={"kl": {}},
        short={
            "weight": ("kl", "weight"),
            "ramp": ("kl", "ramp"),
            "kl_share": ("kl", "windows"),
        },
    ),
    "kl_finetune_25": Row(
        "batch_topk",
        "exact KL in the last quarter of training",
        parts={"kl_finetune": {}},
        short=_FINETUNE,
    ),
    "kl_finetune_5": Row(
        "batch_topk",
        "exact KL in the last twentieth of training",
        parts={"kl_finetune": {"share": 0.05}},
        short=_FINETUNE,
    ),
    "temporal": Row(
        "batch_topk",
        "a slow block of latents that predicts along the text",
        parts={"xpred": {}},
        short=_XPRED,
        nulls={"permute": "permuted_xpred"},
    ),
    "temporal_as_stated": Row(
        "standard",
        "the temporal idea in its first wording: an L1 SAE, all of whose codes pay for change",
        parts={"smooth": {"block": 1}},
        short={
            name: ("smooth", name) for name in ("weight", "block", "window", "variance", "relative")
        },
    ),
    "temporal_on_frontier": Row(
        "frontier",
        "the slow block on frontier, whose latents then are not sorted",
        {"sorts": 0},
        {"xpred": {}},
        short=_XPRED,
    ),
    "t_sae": Row(
        "matryoshka",
        "T-SAE as its paper writes it: two levels, cosine contrast on the inner one",
        {"levels": 2},
        {"token_contrast": {}},
        short={
            name: ("token_contrast", name)
            for name in ("weight", "block", "product", "pre", "temperature")
        },
    ),
}
VARIANTS = (*BASES, *ROWS)  # what a spec may be called after
