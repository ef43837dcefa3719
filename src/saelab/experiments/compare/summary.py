"""Run folders -> `summary.json`: rows, judged contrasts, facts."""

import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from saelab.experiments.compare.judge import judge, means, row, value_of
from saelab.experiments.evaluate.score import read_scores, with_scores
from saelab.experiments.folders import run_folder
from saelab.experiments.plan import Contrast, Expectation, Plan
from saelab.store import read_json, write_json
from saelab.train import Health, UnhealthyRun

COST = ("seconds", "peak_rss_mb", "versions")  # facts of the work that made a summary
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
    record = {
        **merged(facts),
        "tokens": merged([{"tokens": run.source.tokens} for run in plan.runs])["tokens"],
        "seeds": sorted({run.seed for run in plan.runs}),
        "learning_rates": _rates(plan),
        **cost(seconds),
        "warnings": [
            f"{name}: {text}" for name, health in healths.items() for text in health.warnings
        ],
    }
    if plan.facts:
        record |= {**plan.facts, "sanity": sanity(plan.sanity, means(rows))}
    if seconds is None and (Path(out) / "summary.json").exists():
        before = read_json(Path(out) / "summary.json").get("facts", {})
        record |= {name: value for name, value in before.items() if name in COST}
    asked = [c for c in plan.contrasts if not c.where_defined or _defined(c, rows)]
    return write_summary(Path(out), rows, record, healths, asked)


def write_summary(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    facts: dict[str, Any],
    health: Mapping[str, Health],
    contrasts: Sequence[Contrast] = (),
) -> Summary:
    """Make a table of the rows of some runs, whatever they were trained on: judge `contrasts`, take
    means over seeds, and write `<folder>/summary.json`.
    """
    verdicts, averages = judge(contrasts, rows), means(rows)
    record = {"rows": list(rows), "contrasts": verdicts, "means": averages, "facts": facts}
    write_json(folder / "summary.json", record)
    return Summary(folder, tuple(rows), tuple(verdicts), tuple(averages), facts, health)


def _rates(plan: Plan) -> str:
    """Where the learning rates come from: a comparison of rows that were not tuned says so."""
    given = [run.optim.lr is not None for run in plan.runs]
    if all(given):
        return "given for every row"
    return "given for some rows, derived for the others" if any(given) else "derived, not tuned"


def _defined(contrast: Contrast, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether both arms have the metric at all."""
    having = {row["variant"] for row in rows if value_of(row, contrast.metric) is not None}
    return {contrast.baseline, contrast.treatment} <= having


def sanity(
    expected: Sequence[Expectation], means: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Each expectation with the mean that was measured; `ok` null where its row was not run or is
    undefined.
    """
    measured = {mean["variant"]: mean for mean in means}
    rows = []
    for wanted in expected:
        mean = measured.get(wanted.variant)
        value = None if mean is None else value_of(mean, wanted.metric)
        ok = None if value is None else wanted.low <= value <= wanted.high
        rows.append({**asdict(wanted), "value": value, "ok": ok})
    return rows


def merged(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Facts of several runs as one record: a value they share stays itself, differing ones become a
    list.
    """
    record: dict[str, Any] = {}
    for name in dict.fromkeys(name for fact in facts for name in fact):
        values: list[Any] = []
        for fact in facts:
            if name in fact and fact[name] not in values:
                values.append(fact[name])
        record[name] = values[0] if len(values) == 1 else values
    return record


def cost(seconds: float | None) -> dict[str, Any]:
    """What a summary says of the work that made it: time, memory, and versions of packages."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = round(peak * (1 if sys.platform == "darwin" else 1_024) / 1e6)
    passed = None if seconds is None else round(seconds, 1)
    return dict(zip(COST, (passed, megabytes, versions()), strict=True))


def versions() -> dict[str, str]:
    """Python and the packages that results depend on; a package that is not there is left out."""
    numbers = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            numbers[package] = version(package)
        except PackageNotFoundError:
            continue
    return numbers
