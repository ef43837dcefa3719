"""An output folder -> what the page shows. Missing or damaged files become notes on the page, never
an error.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saelab.evals import EVALS, metric_of
from saelab.evals.result import Metric
from saelab.store import read_json, read_lines
from saelab.train.health import EXPLAINED_VARIANCE, L0, score_problems
from saelab.types import Score

GATED = (L0, EXPLAINED_VARIANCE)  # scores that can make a run unhealthy
LATENTS = "latents.json"  # the text of some latents, of the evaluation that wrote it


@dataclass(frozen=True)
class RunRecord:
    """One run: its row of the summary, joined with what its folder holds. None or empty: not
    measured.
    """

    name: str
    variant: str
    seed: int | None
    l0: float | None
    healthy: bool | None  # None: nobody checked
    metrics: dict[str, dict[str, Any]]  # name -> {value, low, high, reason}
    config: dict[str, Any]
    curve: list[dict[str, Any]]
    health: dict[str, Any]
    latents: list[dict[str, Any]] | None
    # evaluation -> what it wrote
    evals: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """`topk, seed 1`: how the page names the run."""
        return self.variant if self.seed is None else f"{self.variant}, seed {self.seed}"

    @property
    def title(self) -> str:
        """The run's name over a picture of its own."""
        return f"{self.label}{' (unhealthy)' if self.problems else ''}"

    @property
    def problems(self) -> list[str]:
        """Why the run does not count; empty for a healthy one. The page looks for itself too:
        nobody may have checked.
        """
        found = [str(text) for text in items(self.health.get("problems"))]
        values = {key: number(self.metrics.get(key, {}).get("value")) for key in GATED}
        known = {key: Score(value) for key, value in values.items() if value is not None}
        if self.l0 is not None:
            known.setdefault(L0, Score(self.l0))
        found = found or score_problems(known)
        return found or (["marked unhealthy, no problem named"] if self.healthy is False else [])

    @property
    def warnings(self) -> list[str]:
        """What a reader should know although the run counts."""
        return [str(text) for text in items(self.health.get("warnings"))]


@dataclass(frozen=True)
class Results:
    """All that one report shows."""

    title: str
    runs: list[RunRecord]
    contrasts: list[dict[str, Any]]
    facts: dict[str, Any]
    notes: list[str] = field(default_factory=list)  # files that are missing or damaged
    # in a world: {variant, n, metrics}, means over seeds
    means: list[dict[str, Any]] = field(default_factory=list)

    @property
    def in_world(self) -> bool:
        """Whether the runs were trained on a synthetic world, whose true features are known."""
        return bool(self.facts.get("world")) or any(
            "world" in mapping(run.config.get("source")) for run in self.runs
        )

    def metric(self, key: str) -> Metric:
        """Label, direction and meaning of a score."""
        return metric_of(key, dict.fromkeys(name for run in self.runs for name in run.evals))

    @property
    def variants(self) -> list[str]:
        """The variants, in order of appearance; their colours follow this order."""
        return list(dict.fromkeys(run.variant for run in self.runs))

    def of(self, variant: str) -> list[RunRecord]:
        """The runs of one variant."""
        return [run for run in self.runs if run.variant == variant]


def number(value: Any) -> float | None:
    """`value` as a finite float, else None (null, NaN, text and booleans are no numbers)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def items(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def mapping(value: Any) -> dict[str, Any]:
    """`value` with text keys if it is a mapping, else an empty one."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def read_results(folder: Path) -> Results:
    """Read an output folder (`summary.json`, `runs/<run>/...`), or a single run's folder.

    Raises `FileNotFoundError` when the folder holds neither.
    """
    folder = Path(folder)
    notes: list[str] = []
    summary = mapping(_read(folder / "summary.json", folder, notes))
    if (folder / "runs").is_dir():
        paths = {
            path.name: path
            for path in sorted((folder / "runs").iterdir())
            if (path / "run.json").is_file()
        }
    else:
        paths = {folder.resolve().name: folder} if (folder / "run.json").is_file() else {}
    rows = [mapping(row) for row in items(summary.get("rows"))]
    if not rows and not paths:
        raise FileNotFoundError(
            f"{folder} holds no results: expected summary.json with rows, or run folders under "
            "runs/; "
            "give the output folder of saelab demo, run, train or eval"
        )
    named = {str(row.get("run", "")) for row in rows}
    rows += [{"run": name} for name in paths if name not in named]
    facts = mapping(summary.get("facts"))
    files = {file.stem for path in paths.values() for file in (path / "eval").glob("*.json")}
    runs = [
        _run(
            row,
            paths.get(str(row.get("run", "")), folder / "runs" / str(row.get("run", ""))),
            folder,
            notes,
            files,
        )
        for row in rows
    ]
    contrasts, means = (
        [mapping(row) for row in items(summary.get(key))] for key in ("contrasts", "means")
    )
    return Results(folder.resolve().name, runs, contrasts, facts, notes, means)


def _run(
    row: dict[str, Any], path: Path, folder: Path, notes: list[str], files: set[str]
) -> RunRecord:
    """`files`: what some run has in its folder of results, so that every run should have it."""
    config = mapping(_read(path / "run.json", folder, notes))
    health = mapping(_read(path / "health.json", folder, notes))
    evals = {
        name: mapping(_read(path / "eval" / f"{name}.json", folder, notes))
        for name in EVALS
        if name in files
    }
    latents = _read(path / "eval" / LATENTS, folder, notes) if Path(LATENTS).stem in files else None
    latents = latents.get("latents") if isinstance(latents, Mapping) else latents
    metrics: dict[str, dict[str, Any]] = {}
    for scores in (*(result.get("scores") for result in evals.values()), row.get("metrics")):
        metrics |= _scores(scores)
    seed = row.get("seed", config.get("seed"))
    healthy = row.get("healthy", health.get("healthy"))
    if health.get("healthy") is False:
        healthy = False  # the run's own record outranks the summary
    l0 = number(row.get("l0"))
    if l0 is not None:
        metrics.setdefault(L0, {"value": l0})
    return RunRecord(
        name=str(row.get("run") or path.name),
        variant=str(
            row.get("variant") or mapping(config.get("spec")).get("variant") or "unknown variant"
        ),
        seed=seed if isinstance(seed, int) else None,
        l0=number(metrics.get(L0, {}).get("value")) if l0 is None else l0,
        healthy=healthy if isinstance(healthy, bool) else None,
        metrics=metrics,
        config=config,
        curve=_curve(path / "metrics.jsonl", folder, notes),
        health=health,
        latents=[mapping(latent) for latent in latents] if isinstance(latents, list) else None,
        evals=evals,
    )


def _scores(value: Any) -> dict[str, dict[str, Any]]:
    """Metrics by name; a bare number counts as a score without an interval."""
    return {
        name: mapping(score) if isinstance(score, Mapping) else {"value": score}
        for name, score in mapping(value).items()
    }


def _read(path: Path, folder: Path, notes: list[str]) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        notes.append(f"{_short(path, folder)} is not there")
    except (OSError, ValueError) as error:
        notes.append(
            f"{_short(path, folder)} cannot be read: {str(error).replace(str(folder), '.')}"
        )
    return None


def _curve(path: Path, folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.is_file():
        notes.append(f"{_short(path, folder)} is not there")
        return []
    try:
        return [mapping(line) for line in read_lines(path)]
    except (OSError, ValueError) as error:
        notes.append(f"{_short(path, folder)} cannot be read: {error}")
        return []


def _short(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
