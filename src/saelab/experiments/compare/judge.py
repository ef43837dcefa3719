"""Rows and contrasts: results of runs -> what `summary.json` says.

A row is plain json, as it stands in the file: `variant, seed, l0, healthy, metrics, run`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from saelab.evals import metric_of
from saelab.experiments.plan import Contrast
from saelab.stats import (
    LEVEL,
    holm,
    mean_score,
    minimum_detectable_difference,
    paired_difference,
    paired_p,
)
from saelab.types import Score

# two arms whose mean L0 differs by more, relative to the baseline's, are not comparable
MAX_L0_GAP = 0.03


def row(
    run: str, variant: str, seed: int, *, healthy: bool, scores: Mapping[str, Score]
) -> dict[str, Any]:
    """One run's line of the summary. A score without a value stays null, with its reason beside
    it.
    """
    return {
        "variant": variant,
        "seed": seed,
        "l0": scores["l0"].value if "l0" in scores else None,
        "healthy": healthy,
        "metrics": {
            name: _interval(score) | _reason(score.reason) for name, score in scores.items()
        },
        "run": run,
    }


def value_of(row: Mapping[str, Any], metric: str) -> float | None:
    """The value of a metric in a row, or in a mean of rows; None where there is none."""
    return row["metrics"].get(metric, {}).get("value")


def _interval(score: Score) -> dict[str, Any]:
    return {"value": score.value, "low": score.low, "high": score.high}


def _reason(reason: str) -> dict[str, str]:
    """Why there is no value, or no verdict; no word where there is one."""
    return {"reason": reason} if reason else {}


def judge(contrasts: Sequence[Contrast], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The verdicts on all contrasts of a plan, each from rows of both variants, paired by seed.

    better / worse: the paired difference treatment - baseline is not 0 in a t test at 5 %, after
    Holm's correction over all contrasts of the plan that can be compared, and lies in the metric's
    `better` direction or against it; else no difference shown. So the chance of one false "better"
    or "worse" in the whole plan is at most 5 %. The interval beside it is that of this contrast
    alone. Not comparable: a run is unhealthy, mean L0 differs by over 3 %, a value is undefined, or
    the two share no seed. `reason` says why whenever the verdict is neither better nor worse.

    `p` is the corrected p-value, `detectable` the smallest true difference that as many seeds with
    this spread show in 4 of 5 cases; both are null where there is no interval.
    """
    compared = [_compared(contrast, rows) for contrast in contrasts]
    tested = [i for i, result in enumerate(compared) if result.p is not None]
    corrected = dict(zip(tested, holm([compared[i].p or 0.0 for i in tested]), strict=True))
    return [_entry(result, corrected.get(i), len(tested)) for i, result in enumerate(compared)]


@dataclass(frozen=True)
class _Compared:
    """One contrast by itself: its paired difference and what stands against a verdict."""

    contrast: Contrast
    difference: Score
    p: float | None = None  # of this contrast alone
    detectable: float | None = None
    obstacle: str = ""  # why the two cannot be compared


def _compared(contrast: Contrast, rows: Sequence[Mapping[str, Any]]) -> _Compared:
    baseline = {row["seed"]: row for row in rows if row["variant"] == contrast.baseline}
    treatment = {row["seed"]: row for row in rows if row["variant"] == contrast.treatment}
    pairs = [(treatment[seed], baseline[seed]) for seed in sorted(set(baseline) & set(treatment))]
    obstacle = _obstacle(contrast, pairs)
    if obstacle:
        return _Compared(contrast, Score(None), obstacle=obstacle)
    values = [[row["metrics"][contrast.metric]["value"] for row in pair] for pair in pairs]
    difference = paired_difference([pair[0] for pair in values], [pair[1] for pair in values])
    if len(pairs) < 2:
        return _Compared(contrast, difference)
    gaps = [pair[0] - pair[1] for pair in values]
    return _Compared(contrast, difference, paired_p(gaps), minimum_detectable_difference(gaps))


def _entry(compared: _Compared, p: float | None, tested: int) -> dict[str, Any]:
    """One contrast as the summary has it; `p` is corrected over the `tested` ones."""
    contrast = compared.contrast
    verdict, reason = _verdict(compared, p, tested)
    return {
        "metric": contrast.metric,
        "baseline": contrast.baseline,
        "treatment": contrast.treatment,
        **_interval(compared.difference),
        "n": compared.difference.n,
        "p": p,
        "detectable": compared.detectable,
        "verdict": verdict,
        **_reason(reason),
    }


def _verdict(compared: _Compared, p: float | None, tested: int) -> tuple[str, str]:
    """The verdict in words, and the reason where it is neither better nor worse."""
    difference = compared.difference
    value, low, high = difference.value, difference.low, difference.high
    if compared.obstacle:
        return "not comparable", compared.obstacle
    if value is None or low is None or high is None or p is None:
        return "no difference shown", difference.reason
    if low <= 0 <= high:
        return "no difference shown", f"the interval over {difference.n} seeds includes 0"
    if p > 1 - LEVEL:
        return (
            "no difference shown",
            f"alone it would count, but not among {tested} contrasts (corrected p {p:.2g})",
        )
    better = metric_of(compared.contrast.metric).better
    if better == "neither":
        return "no difference shown", f"{compared.contrast.metric} has no better direction"
    return ("better" if (value > 0) == (better == "higher") else "worse"), ""


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean over the healthy seeds of every variant and metric, with a Student t interval: what a
    table prints.

    A metric that is undefined for one of the seeds has no mean; the reason says for which.
    """
    table = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        seeds = [row for row in rows if row["variant"] == variant and row["healthy"]]
        names = dict.fromkeys(name for row in seeds for name in row["metrics"])
        metrics = {name: _mean(name, seeds) for name in names}
        table.append({"variant": variant, "n": len(seeds), "metrics": metrics})
    return table


def _mean(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    missing = [row for row in rows if value_of(row, name) is None]
    if missing:
        seed = missing[0]["seed"]
        reason = missing[0]["metrics"].get(name, {}).get("reason", "not measured")
        n = len(rows) - len(missing)
        score = Score(None, n=n, reason=f"undefined for seed {seed}: {reason}")
    else:
        score = mean_score([row["metrics"][name]["value"] for row in rows])
    return {**_interval(score), "n": score.n, **_reason(score.reason)}


def _obstacle(
    contrast: Contrast, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> str:
    """Why the two arms cannot be compared; empty when they can."""
    if not pairs:
        return f"{contrast.treatment} and {contrast.baseline} have no seed in common"
    rows = [row for pair in pairs for row in pair]
    unhealthy = [row["run"] for row in rows if not row["healthy"]]
    if unhealthy:
        return f"unhealthy: {', '.join(unhealthy)}"
    unmeasured = [row["run"] for row in rows if value_of(row, contrast.metric) is None]
    if unmeasured:
        return f"{contrast.metric} is undefined or not measured for {', '.join(unmeasured)}"
    if any(row["l0"] is None for row in rows):
        return "L0 was not measured"
    treatment = fmean(pair[0]["l0"] for pair in pairs)
    baseline = fmean(pair[1]["l0"] for pair in pairs)
    if abs(treatment - baseline) > MAX_L0_GAP * baseline:
        return f"mean L0 {treatment:.2f} against {baseline:.2f} differs by over {MAX_L0_GAP:.0%}"
    return ""
