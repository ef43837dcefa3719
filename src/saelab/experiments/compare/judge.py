"""Rows and contrasts: results of runs -> what `summary.json` says.

A row is plain json, as it stands in the file: `variant, seed, l0, healthy, metrics, run`.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from saelab.experiments.plan import Contrast
from saelab.stats import mean_score, paired_difference
from saelab.types import Better, Score

# two arms whose mean L0 differs by more, relative to the baseline's, are not comparable
MAX_L0_GAP = 0.03


def row(
    run: str, variant: str, seed: int, *, healthy: bool, scores: Mapping[str, Score]
) -> dict[str, Any]:
    """One run's line of the summary. A score without a value stays null, with its reason beside
    it.
    """
    l0 = scores.get("l0")
    metrics = {}
    for name, score in scores.items():
        metrics[name] = {"value": score.value, "low": score.low, "high": score.high}
        if score.reason:
            metrics[name]["reason"] = score.reason
    return {
        "variant": variant,
        "seed": seed,
        "l0": None if l0 is None else l0.value,
        "healthy": healthy,
        "metrics": metrics,
        "run": run,
    }


def judge(contrast: Contrast, rows: Sequence[Mapping[str, Any]], better: Better) -> dict[str, Any]:
    """The verdict on one contrast, from rows of both variants, paired by seed.

    better / worse: the 95 % interval of the paired difference treatment - baseline excludes 0 in
    the metric's `better` direction; else no difference shown. Not comparable: a run is unhealthy,
    mean L0 differs by over 3 %, a value is undefined, or the two share no seed. `reason` says why
    whenever the verdict is neither better nor worse.
    """
    baseline = {r["seed"]: r for r in rows if r["variant"] == contrast.baseline}
    treatment = {r["seed"]: r for r in rows if r["variant"] == contrast.treatment}
    seeds = sorted(set(baseline) & set(treatment))
    pairs = [(treatment[seed], baseline[seed]) for seed in seeds]
    obstacle = _obstacle(contrast, pairs)
    if obstacle:
        return _entry(contrast, Score(None), "not comparable", obstacle)
    values = [
        [r["metrics"][contrast.metric]["value"] for r in arm] for arm in zip(*pairs, strict=True)
    ]
    difference = paired_difference(values[0], values[1], better=better)
    value, low, high = difference.value, difference.low, difference.high
    if value is None or low is None or high is None:
        return _entry(contrast, difference, "no difference shown", difference.reason)
    if low <= 0 <= high:
        return _entry(
            contrast,
            difference,
            "no difference shown",
            f"the interval over {len(seeds)} seeds includes 0",
        )
    if better == "neither":
        return _entry(
            contrast,
            difference,
            "no difference shown",
            f"{contrast.metric} has no better direction",
        )
    return _entry(
        contrast, difference, "better" if (value > 0) == (better == "higher") else "worse", ""
    )


def means(rows: Sequence[Mapping[str, Any]], better: Mapping[str, Better]) -> list[dict[str, Any]]:
    """Mean over the healthy seeds of every variant and metric, with a Student t interval: what a
    table prints.

    A metric that is undefined for one of the seeds has no mean; the reason says for which.
    """
    together = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant and row["healthy"]]
        metrics = {
            name: _mean(name, own, better.get(name, "neither"))
            for name in dict.fromkeys(m for r in own for m in r["metrics"])
        }
        together.append({"variant": variant, "n": len(own), "metrics": metrics})
    return together


def _mean(name: str, rows: Sequence[Mapping[str, Any]], better: Better) -> dict[str, Any]:
    found = [(row["seed"], row["metrics"].get(name, {})) for row in rows]
    missing = [
        (seed, entry.get("reason", "not measured"))
        for seed, entry in found
        if entry.get("value") is None
    ]
    if missing:
        score = Score(
            None,
            n=len(found) - len(missing),
            reason=f"undefined for seed {missing[0][0]}: {missing[0][1]}",
        )
    else:
        score = mean_score([entry["value"] for _, entry in found], better=better)
    entry = {"value": score.value, "low": score.low, "high": score.high, "n": score.n}
    return entry | ({"reason": score.reason} if score.reason else {})


def _obstacle(
    contrast: Contrast, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> str:
    """Why the two arms cannot be compared; empty when they can."""
    if not pairs:
        return f"{contrast.treatment} and {contrast.baseline} have no seed in common"
    unhealthy = [r["run"] for pair in pairs for r in pair if not r["healthy"]]
    if unhealthy:
        return f"unhealthy: {', '.join(unhealthy)}"
    unmeasured = [
        r["run"]
        for pair in pairs
        for r in pair
        if r["metrics"].get(contrast.metric, {}).get("value") is None
    ]
    if unmeasured:
        return f"{contrast.metric} is undefined or not measured for {', '.join(unmeasured)}"
    if any(r["l0"] is None for pair in pairs for r in pair):
        return "L0 was not measured"
    of_treatment, of_baseline = (fmean(r["l0"] for r in arm) for arm in zip(*pairs, strict=True))
    if abs(of_treatment - of_baseline) > MAX_L0_GAP * of_baseline:
        return (
            f"mean L0 {of_treatment:.2f} against {of_baseline:.2f} differs by over {MAX_L0_GAP:.0%}"
        )
    return ""


def _entry(contrast: Contrast, difference: Score, verdict: str, reason: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "metric": contrast.metric,
        "baseline": contrast.baseline,
        "treatment": contrast.treatment,
        "value": difference.value,
        "low": difference.low,
        "high": difference.high,
        "verdict": verdict,
    }
    return entry | ({"reason": reason} if reason else {})


def merged(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts of several runs as one record: a value they share stays itself, differing ones become a
    list.
    """
    names = dict.fromkeys(name for fact in facts for name in fact)
    together: dict[str, Any] = {}
    for name in names:
        values: list[Any] = []
        for fact in facts:
            if name in fact and fact[name] not in values:
                values.append(fact[name])
        together[name] = values[0] if len(values) == 1 else values
    return together
