"""An output folder -> what the page shows. Missing or damaged files become notes on the page, never
an error.
"""

import math
from collections.abc import Callable, Mapping
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
    rule: str = ""  # how the latents were chosen

    def value(self, metric: str) -> float | None:
        """A score as a number; None where it is undefined or was not measured."""
        return number(self.metrics.get(metric, {}).get("value"))

    @property
    def label(self) -> str:
        """`topk, seed 1`: how the page names the run."""
        return self.variant if self.seed is None else f"{self.variant}, seed {self.seed}"

    @property
    def title(self) -> str:
        """The label over a picture of this run alone, which says whether it counts."""
        return f"{self.label}{' (unhealthy)' if self.problems else ''}"

    @property
    def problems(self) -> list[str]:
        """Why the run does not count; empty for a healthy one. The page looks for itself too:
        nobody may have checked.
        """
        problems = [str(text) for text in items(self.health.get("problems"))]
        values = {key: self.value(key) for key in GATED}
        scores = {key: Score(value) for key, value in values.items() if value is not None}
        if self.l0 is not None:
            scores.setdefault(L0, Score(self.l0))
        unnamed = ["marked unhealthy, no problem named"] if self.healthy is False else []
        return problems or score_problems(scores) or unnamed

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
    # in a world: variant -> metric -> {value, low, high, n, reason}, means over seeds
    means: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def alone(self) -> bool:
        """Whether there is one run, so that nothing can be compared."""
        return len(self.runs) == 1 and not self.contrasts

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

    def runs_of(self, variant: str) -> list[RunRecord]:
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


@dataclass(frozen=True)
class _Reader:
    """Reads the files of a folder, and notes what is missing or damaged instead of raising."""

    folder: Path
    notes: list[str] = field(default_factory=list)

    def read(self, path: Path, parse: Callable[[Path], Any] = read_json) -> Any:
        """What `parse` makes of a file; None with a note where it is missing or damaged."""
        name = path.relative_to(self.folder) if path.is_relative_to(self.folder) else path
        if not path.is_file():
            self.notes.append(f"{name} is not there")
            return None
        try:
            return parse(path)
        except (OSError, ValueError) as error:
            reason = str(error).replace(str(self.folder), ".")
            self.notes.append(f"{name} cannot be read: {reason}")
            return None


def read_results(folder: Path) -> Results:
    """Read an output folder (`summary.json`, `runs/<run>/...`), or a single run's folder.

    Raises `FileNotFoundError` when the folder holds neither.
    """
    folder = Path(folder)
    reader = _Reader(folder)
    is_run = (folder / "run.json").is_file() and not (folder / "summary.json").is_file()
    summary = {} if is_run else mapping(reader.read(folder / "summary.json"))
    rows = [mapping(row) for row in items(summary.get("rows"))]
    if (folder / "runs").is_dir():
        paths = {path.name: path for path in sorted((folder / "runs").iterdir())}
    else:  # a run's own folder, which may have had another name when it was summed up
        paths = {str(rows[0].get("run")) if len(rows) == 1 else folder.resolve().name: folder}
    paths = {name: path for name, path in paths.items() if (path / "run.json").is_file()}
    if not rows and not paths:
        raise FileNotFoundError(
            f"{folder} holds no results: expected summary.json with rows, or run folders under "
            "runs/; give the output folder of saelab demo, run, train or eval"
        )
    listed = {str(row.get("run", "")) for row in rows}
    rows += [{"run": name} for name in paths if name not in listed]
    files = {file.stem for path in paths.values() for file in (path / "eval").glob("*.json")}
    runs = []
    for row in rows:
        name = str(row.get("run", ""))
        runs.append(_run(row, paths.get(name, folder / "runs" / name), reader, files))
    return Results(
        title=folder.resolve().name,
        runs=runs,
        contrasts=[mapping(row) for row in items(summary.get("contrasts"))],
        facts=_own_facts(reader, runs[0]) if is_run else mapping(summary.get("facts")),
        notes=reader.notes,
        means={
            str(row.get("variant")): mapping(row.get("metrics"))
            for row in map(mapping, items(summary.get("means")))
        },
    )


def _own_facts(reader: _Reader, run: RunRecord) -> dict[str, Any]:
    """What a run that nothing sums up records of itself: its source, and the facts of its SAE."""
    meta = mapping(mapping(reader.read(reader.folder / "sae" / "sae.json")).get("meta"))
    source = mapping(run.config.get("source"))
    known = {name: source[name] for name in ("model", "world", "corpus", "hook") if name in source}
    facts = known | mapping(meta.get("facts"))
    return facts | {"tokens": source.get("tokens"), "seeds": [run.seed]}


def _run(row: dict[str, Any], path: Path, reader: _Reader, files: set[str]) -> RunRecord:
    """`files`: what some run has in its folder of results, so that every run should have it."""
    config = mapping(reader.read(path / "run.json"))
    health = mapping(reader.read(path / "health.json"))
    evals = {
        name: mapping(reader.read(path / "eval" / f"{name}.json"))
        for name in EVALS
        if name in files
    }
    latents = reader.read(path / "eval" / LATENTS) if Path(LATENTS).stem in files else None
    rule, latents = (mapping(latents).get(key) for key in ("rule", "latents"))
    metrics: dict[str, dict[str, Any]] = {}
    for scores in (*(result.get("scores") for result in evals.values()), row.get("metrics")):
        metrics |= {name: mapping(score) for name, score in mapping(scores).items()}
    seed = row.get("seed", config.get("seed"))
    healthy = row.get("healthy", health.get("healthy"))
    if health.get("healthy") is False:
        healthy = False  # the run's own record outranks the summary
    l0 = number(row.get("l0"))
    if l0 is not None:
        metrics.setdefault(L0, {"value": l0})
    variant = row.get("variant") or mapping(config.get("spec")).get("variant")
    return RunRecord(
        name=str(row.get("run") or path.name),
        variant=str(variant or "unknown variant"),
        seed=seed if isinstance(seed, int) else None,
        l0=number(metrics.get(L0, {}).get("value")) if l0 is None else l0,
        healthy=healthy if isinstance(healthy, bool) else None,
        metrics=metrics,
        config=config,
        curve=[mapping(line) for line in reader.read(path / "metrics.jsonl", read_lines) or ()],
        health=health,
        latents=[mapping(latent) for latent in latents] if isinstance(latents, list) else None,
        evals=evals,
        rule=rule if isinstance(rule, str) else "",
    )
