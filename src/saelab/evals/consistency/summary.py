"""What the effects of carriers say of a dictionary: a row per concept, scores over concepts,
agreement of the types.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from saelab.evals.common.interventions import rank_correlation
from saelab.evals.consistency.effects import AGAINST, CONTROL, GROUPS, GroupEffects
from saelab.evals.consistency.tokens import Question
from saelab.evals.result import Result, Table
from saelab.types import Score

NO_CONCEPT = "no concept has carriers that act on enough positions"
IN_TABLE = ("zero", "mean", "steer")
Leads = Mapping[tuple[str, str], Sequence[Score]]  # by type and by what is led, one per concept


@dataclass(frozen=True)
class Finding:
    """What was measured of one concept."""

    question: Question
    carriers: list[int]
    auroc: list[float]  # of the carriers, on the test files
    # by type; empty: undefined, `reason` says why
    effects: Mapping[str, GroupEffects] = field(default_factory=dict)
    elsewhere: GroupEffects | None = (
        None  # first type, where the concept does not decide the next token
    )
    by_chance: GroupEffects | None = None  # first type, latents chosen by shuffled labels
    coverage: float | None = None  # share of the decided positions on which a carrier is active
    stretch: float | None = None  # see `effects.Outcome`
    reason: str = ""

    def row(self) -> dict[str, Any]:
        """Of the table."""
        question = self.question
        effects = {**self.effects, "elsewhere": self.elsewhere, "by_chance": self.by_chance}
        return {
            "concept": question.concept.name,
            "family": question.concept.family,
            "decides": list(question.shown),
            "decided_tokens": len(question.members),
            "decided_positions": question.n_decided,
            "carriers": self.carriers,
            "auroc": self.auroc,
            "coverage": self.coverage,
            "stretch": self.stretch,
            "reason": self.reason,
            **{name: effect.row() for name, effect in effects.items() if effect is not None},
        }


def summarise(
    findings: Sequence[Finding], types: Sequence[str], facts: Mapping[str, Any]
) -> Result:
    """Scores of a dictionary, means over the concepts whose carriers act, each with a bootstrap
    over concepts; `metrics.METRICS` says what each of them is.

    A lead is over the size of the effect of the directions (`above_control`) or of the other
    latents (`above_others`). Agreement and equal signs are of the leads over control; `elsewhere`
    and `by_chance`, a lead over control as well, are of the first type. `undefined` is a share of
    all concepts.
    """
    measured = [finding for finding in findings if finding.effects]
    leads: Leads = {
        (name, key): [finding.effects[name].lead(group) for finding in measured]
        for name in types
        for key, group in AGAINST.items()
    }
    ahead = [
        all((score.value or 0) > 0 for score in scores)
        for scores in zip(*leads.values(), strict=True)
    ]
    agreement = _agreement(types, leads)
    scores = _of_types(measured, types, leads) | {
        "consistency_all_types": _mean([float(leading) for leading in ahead]),
        "consistency_agreement": _over_pairs(agreement, "spearman", len(measured)),
        "consistency_equal_signs": _over_pairs(agreement, "equal_signs", len(measured)),
        "consistency_elsewhere": _mean([f.elsewhere.of_carriers for f in measured if f.elsewhere]),
        "consistency_by_chance": _mean(
            [f.by_chance.lead(CONTROL).value for f in measured if f.by_chance]
        ),
        "consistency_coverage": _mean([finding.coverage for finding in measured]),
        "consistency_undefined": _mean([float(not finding.effects) for finding in findings]),
    }
    rows = [finding.row() for finding in findings]
    return Result(
        scores,
        tables={"consistency": _table(rows, types)},
        details={"eval": "consistency", "facts": facts, "agreement": agreement, "concepts": rows},
    )


def _of_types(measured: Sequence[Finding], types: Sequence[str], leads: Leads) -> dict[str, Score]:
    """Effect and leads under every type, and the shares of concepts whose interval lies above 0."""
    scores = {}
    for name in types:
        effects = [finding.effects[name].of_carriers for finding in measured]
        scores[f"consistency_{name}"] = _mean(effects)
        for key in AGAINST:
            above = leads[name, key]
            positive = [None if lead.low is None else float(lead.low > 0) for lead in above]
            scores[f"consistency_{name}_{key}"] = _mean([lead.value for lead in above])
            scores[f"consistency_{name}_share_{key}"] = _mean(positive)
    return scores


def _table(rows: Sequence[Mapping[str, Any]], types: Sequence[str]) -> Table:
    """Per concept what its carriers, a random direction and other latents do, nats."""
    shown = [name for name in IN_TABLE if name in types]

    def cell(row: Mapping[str, Any], name: str) -> str | None:
        means = row.get(name)
        return None if means is None else " / ".join(f"{means[group]:.2f}" for group in GROUPS)

    return Table(
        "Causal consistency: nats that decided tokens lose (steer: gain)",
        ("concept", "decides", *shown, "why there is none"),
        [
            (
                row["concept"],
                " ".join(repr(text) for text in row["decides"][:3]),
                *(cell(row, name) for name in shown),
                row["reason"] or None,
            )
            for row in rows
        ],
        "Carriers / a random direction / other latents, by changes of one norm. Bad to see: "
        "carriers that move the tokens of their concept no more than the others do.",
    )


def _mean(values: Sequence[float | None]) -> Score:
    """Mean over the concepts where it is a number, with a bootstrap over them."""
    from saelab.stats import Resampling

    numbers = torch.tensor([v for v in values if v is not None], dtype=torch.double)
    numbers = numbers[numbers.isfinite()]
    if not len(numbers):
        return Score(None, reason=NO_CONCEPT)
    if len(numbers) == 1:
        return Score(float(numbers[0]), n=1, reason="no interval: it takes at least 2 concepts")
    sums = torch.stack([numbers, torch.ones(len(numbers))], 1)
    return Resampling(sums).score(lambda s: s[:, 0] / s[:, 1])


def _agreement(types: Sequence[str], leads: Leads) -> dict[str, dict[str, float | None]]:
    """How two types agree over concepts, for each pair of types, of their leads over control."""
    above = {
        name: torch.tensor(
            [torch.nan if s.value is None else s.value for s in leads[name, "above_control"]]
        )
        for name in types
    }
    return {
        f"{a} {b}": {
            "spearman": rank_correlation(above[a], above[b]),
            "equal_signs": _equal_signs(above[a], above[b]),
        }
        for a, b in combinations(types, 2)
    }


def _equal_signs(a: Tensor, b: Tensor) -> float | None:
    both = a.isfinite() & b.isfinite()
    return float((a[both].sign() == b[both].sign()).float().mean()) if both.any() else None


def _over_pairs(agreement: Mapping[str, Mapping[str, float | None]], key: str, n: int) -> Score:
    """Mean over the pairs of types for which the statistic `key` exists."""
    values = [value for pair in agreement.values() if (value := pair[key]) is not None]
    if not values:
        return Score(None, reason="fewer than 2 types, or too few concepts, to compare")
    return Score(
        sum(values) / len(values),
        n=n,
        reason="no interval: a statistic over the concepts",
    )
