"""Run folders -> `summary.json`: rows, judged contrasts, facts."""

import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from saelab.experiments.compare.judge import judge, means, merged, row
from saelab.experiments.evaluate.score import read_scores, with_scores
from saelab.experiments.folders import run_folder
from saelab.experiments.plan import Contrast, Expectation, Plan
from saelab.store import read_json, write_json
from saelab.train import Health, UnhealthyRun

PACKAGES = ("saelab", "torch", "transformers", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Summary:
    """What `summary.json` says, and the verdict of the health gate on every run by name."""

    folder: Path
    rows: tuple[dict[str, Any], ...]
    contrasts: tuple[dict[str, Any], ...]
    means: tuple[dict[str, Any], ...]
    facts: dict[str, Any]
    health: Mapping[str, Health]

    def check(self) -> None:
        """Raise `UnhealthyRun` when a run is unhealthy, naming each with its problem."""
        bad = [
            f"{name}: {'; '.join(health.problems)}"
            for name, health in self.health.items()
            if not health.healthy
        ]
        if bad:
            count = (
                f"{len(bad)} of {len(self.health)} runs {'is' if len(bad) == 1 else 'are'} "
                "unhealthy"
            )
            raise UnhealthyRun(f"{count}. " + ". ".join(bad))


def summarise(plan: Plan, out: Path, *, seconds: float | None) -> Summary:
    """Read every run's results, judge the contrasts, write `<out>/summary.json`.

    `seconds` that this call worked; None when all was done before: then its time and memory stand
    as they were.
    """
    rows, facts, healths = [], [], {}
    for run in plan.runs:
        folder = run_folder(out, run)
        scores = read_scores(folder.path, plan.evals)
        health = with_scores(folder.health(), scores)
        if health != folder.health():
            folder.write_health(health)
        healths[folder.name] = health
        rows.append(
            row(folder.name, run.spec.name, run.seed, healthy=health.healthy, scores=scores)
        )
        facts.append(folder.meta().get("facts", {}))
    asked = [c for c in plan.contrasts if not c.where_defined or _defined(c, rows)]
    contrasts = judge(asked, rows)
    together = means(rows)
    record = {
        **merged(facts),
        "tokens": merged([{"tokens": run.source.tokens} for run in plan.runs])["tokens"],
        "seeds": sorted({run.seed for run in plan.runs}),
        "learning_rates": _rates(plan),
        "seconds": None if seconds is None else round(seconds, 1),
        "peak_rss_mb": round(peak_rss() / 1e6),
        "versions": versions(),
        "warnings": [
            f"{name}: {text}" for name, health in healths.items() for text in health.warnings
        ],
    }
    if plan.facts:
        record |= {**plan.facts, "sanity": sanity(plan.sanity, together)}
    if seconds is None and (Path(out) / "summary.json").exists():
        before = read_json(Path(out) / "summary.json").get("facts", {})
        record |= {
            name: before[name] for name in ("seconds", "peak_rss_mb", "versions") if name in before
        }
    return write_summary(
        Summary(Path(out), tuple(rows), tuple(contrasts), tuple(together), record, healths)
    )


def _rates(plan: Plan) -> str:
    """Where the learning rates come from: a comparison of rows that were not tuned says so."""
    given = [run.optim.lr is not None for run in plan.runs]
    if all(given):
        return "given for every row"
    return "given for some rows, derived for the others" if any(given) else "derived, not tuned"


def _defined(contrast: Contrast, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether both arms have the metric at all."""
    return all(
        any(
            row["metrics"].get(contrast.metric, {}).get("value") is not None
            for row in rows
            if row["variant"] == arm
        )
        for arm in (contrast.baseline, contrast.treatment)
    )


def sanity(
    expected: Sequence[Expectation], means: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each expectation with the mean that was measured; `ok` null where its row was not run or is
    undefined.
    """
    measured = {row["variant"]: row["metrics"] for row in means}
    rows = []
    for wanted in expected:
        value = measured.get(wanted.variant, {}).get(wanted.metric, {}).get("value")
        ok = None if value is None else wanted.low <= value <= wanted.high
        rows.append({**asdict(wanted), "value": value, "ok": ok})
    return rows


def write_summary(summary: Summary) -> Summary:
    """Write `summary.json` into its folder and return the summary."""
    record = {
        "rows": list(summary.rows),
        "contrasts": list(summary.contrasts),
        "means": list(summary.means),
    }
    record |= {"facts": summary.facts}
    write_json(summary.folder / "summary.json", record)
    return summary


def peak_rss() -> int:
    """Largest resident memory of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    """Python and the packages that results depend on; a package that is not there is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
