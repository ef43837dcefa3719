"""What the effects of carriers say of a dictionary: a row per concept, scores over concepts,
agreement of the types.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from saelab.evals.consistency.tokens import Question
from saelab.evals.nces.effects import rank_correlation
from saelab.evals.result import Result, Table
from saelab.stats import Resampling, bootstrap_ratio
from saelab.types import Score

CARRIERS, CONTROL, OTHERS = range(3)
NO_CONCEPT = "no concept has carriers that act on enough positions"
IN_TABLE, WHO = ("zero", "mean", "steer"), ("carriers", "control", "others")
AGAINST = {"above_control": CONTROL, "above_others": OTHERS}


@dataclass(frozen=True)
class Effect:
    """Effects of carriers, control and others at n positions, nats.

    The carriers' effect counts in the direction that the concept predicts. Nothing says which way
    the control and the other latents should move the decided tokens: theirs counts in absolute
    value, or both would average out to little.
    """

    mass: Tensor  # [3, n] on the decided tokens, signed
    kl: Tensor  # [3, n]
    file: Tensor  # [n]

    def means(self) -> dict[str, Any]:
        """Means over positions, and the carriers' lead over control and others, paired by position,
        with intervals.
        """
        signed, size = self.mass.nanmean(1).tolist(), self.mass.abs().nanmean(1).tolist()
        row: dict[str, Any] = {"positions": self.mass.shape[1]}
        row |= {"carriers": signed[CARRIERS], "control": size[CONTROL], "others": size[OTHERS]}
        row |= {"signed": {"control": signed[CONTROL], "others": signed[OTHERS]}}
        row["kl"] = dict(
            zip(("carriers", "control", "others"), self.kl.nanmean(1).tolist(), strict=True)
        )
        return row | {name: self.lead(group) for name, group in AGAINST.items()}

    def lead(self, group: int) -> Score:
        """Mean of carriers less |group|; 95 % bootstrap over files."""
        apart = self.mass[CARRIERS] - self.mass[group].abs()
        there = apart.isfinite()
        if not there.any():
            return Score(None, reason="no other latent is active there")
        return bootstrap_ratio(apart[there], torch.ones(int(there.sum())), self.file[there])


@dataclass(frozen=True)
class Finding:
    """What was measured of one concept."""

    question: Question
    carriers: list[int]
    auroc: list[float]  # of the carriers, on the test files
    # by type; empty: undefined, `reason` says why
    effects: Mapping[str, Effect] = field(default_factory=dict)
    elsewhere: Effect | None = None  # first type, where the concept does not decide the next token
    by_chance: Effect | None = None  # first type, latents chosen by shuffled labels
    coverage: float | None = None  # share of the decided positions on which a carrier is active
    stretch: float | None = None  # see `effects.Effects`
    reason: str = ""

    def row(self) -> dict[str, Any]:
        """Of the table."""
        q = self.question
        row: dict[str, Any] = {
            "concept": q.concept.name,
            "family": q.concept.family,
            "decides": list(q.shown),
        }
        row |= {
            "decided_tokens": len(q.members),
            "decided_positions": q.n_decided,
            "carriers": self.carriers,
        }
        row |= {
            "auroc": self.auroc,
            "coverage": self.coverage,
            "stretch": self.stretch,
            "reason": self.reason,
        }
        row |= {name: _plain(effect) for name, effect in self.effects.items()}
        rest = {"elsewhere": self.elsewhere, "by_chance": self.by_chance}
        return row | {name: _plain(effect) for name, effect in rest.items() if effect is not None}


def summarise(
    findings: Sequence[Finding], types: Sequence[str], facts: Mapping[str, Any]
) -> Result:
    """Scores of a dictionary, means over the concepts whose carriers act, each with a bootstrap
    over concepts.

    - `consistency_<type>`: effect of the carriers, nats; `_above_control`, `_above_others`: less
      the size of that of the directions and of the other latents; `_share_above_control`,
      `_share_above_others`: share of concepts whose interval over files lies above 0;
    - `consistency_all_types`: share of concepts whose carriers lead control and others, on average,
      under every type;
    - `consistency_agreement`: mean rank correlation over concepts, between types, of the lead over
      control; `consistency_equal_signs`: mean share of concepts for which two types' leads have the
      same sign;
    - `consistency_elsewhere`: effect of the first type where the concept holds and another token is
      next; `consistency_by_chance`: lead over control of latents chosen by shuffled labels, under
      the first type;
    - `consistency_coverage`: share of decided positions on which a carrier is active;
      `consistency_undefined`: share of the concepts that are in no other score.
    """
    there = [f for f in findings if f.effects]
    leads = {
        name: {which: [f.effects[name].lead(g) for f in there] for which, g in AGAINST.items()}
        for name in types
    }
    scores: dict[str, Score] = {}
    for name in types:
        scores[f"consistency_{name}"] = _mean([_own(f.effects[name]) for f in there])
        for which, each in leads[name].items():
            scores[f"consistency_{name}_{which}"] = _mean([_value(s.value) for s in each])
            scores[f"consistency_{name}_share_{which}"] = _mean([_positive(s) for s in each])
    ahead = [
        all(_value(leads[name][which][i].value) > 0 for name in types for which in AGAINST)
        for i in range(len(there))
    ]
    scores["consistency_all_types"] = _mean([float(each) for each in ahead])
    agreement = _agreement(
        {
            name: torch.tensor([_value(s.value) for s in leads[name]["above_control"]])
            for name in types
        }
    )
    scores["consistency_agreement"] = _over_pairs(
        [pair["spearman"] for pair in agreement.values()], len(there)
    )
    scores["consistency_equal_signs"] = _over_pairs(
        [pair["equal_signs"] for pair in agreement.values()], len(there)
    )
    scores["consistency_elsewhere"] = _mean([_own(f.elsewhere) for f in there if f.elsewhere])
    scores["consistency_by_chance"] = _mean(
        [_value(f.by_chance.lead(CONTROL).value) for f in there if f.by_chance]
    )
    scores["consistency_coverage"] = _mean([_value(f.coverage) for f in there])
    scores["consistency_undefined"] = _mean([float(not f.effects) for f in findings])
    rows = [f.row() for f in findings]
    return Result(
        scores,
        tables={"consistency": _table(rows, types)},
        details={"eval": "consistency", "facts": facts, "agreement": agreement, "concepts": rows},
    )


def _table(rows: Sequence[Mapping[str, Any]], types: Sequence[str]) -> Table:
    """Per concept what its carriers, a random direction and other latents do, nats."""
    shown = [name for name in IN_TABLE if name in types]

    def cell(row: Mapping[str, Any], name: str) -> str | None:
        means = row.get(name)
        return None if means is None else " / ".join(f"{means[who]:.2f}" for who in WHO)

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


def _mean(values: Sequence[float]) -> Score:
    """Mean over the concepts where it is a number, with a bootstrap over them."""
    known = torch.tensor(values, dtype=torch.double)
    known = known[known.isfinite()]
    if not len(known):
        return Score(None, reason=NO_CONCEPT)
    if len(known) == 1:
        return Score(float(known[0]), n=1, reason="no interval: it takes at least 2 concepts")
    return Resampling(torch.stack([known, torch.ones(len(known))], 1)).score(
        lambda s: s[:, 0] / s[:, 1]
    )


def _agreement(leads: Mapping[str, Tensor]) -> dict[str, dict[str, float | None]]:
    """How two types agree over concepts, for each pair of types, of their leads over control
    `[C]`.
    """
    return {
        f"{a} {b}": {
            "spearman": rank_correlation(leads[a], leads[b]),
            "equal_signs": _equal_signs(leads[a], leads[b]),
        }
        for a, b in combinations(leads, 2)
    }


def _equal_signs(a: Tensor, b: Tensor) -> float | None:
    both = a.isfinite() & b.isfinite()
    return float((a[both].sign() == b[both].sign()).float().mean()) if both.any() else None


def _over_pairs(values: Sequence[float | None], n: int) -> Score:
    known = [value for value in values if value is not None]
    if not known:
        return Score(None, reason="fewer than 2 types, or too few concepts, to compare")
    return Score(
        sum(known) / len(known),
        n=n,
        reason="no interval: a statistic over the concepts",
    )


def _own(effect: Effect) -> float:
    return float(effect.mass[CARRIERS].mean())


def _value(value: float | None) -> float:
    return float("nan") if value is None else value


def _positive(lead: Score) -> float:
    """1 where the interval lies above 0, 0 where it does not, NaN where there is none."""
    return float("nan") if lead.low is None else float(lead.low > 0)


def _plain(effect: Effect) -> dict[str, Any]:
    return {
        key: asdict(value) if isinstance(value, Score) else value
        for key, value in effect.means().items()
    }
