"""Evaluate trained SAEs on held-out text and write the results under `<folder>/eval/`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from saelab.evals import EVALS
from saelab.evals.result import Result, Table
from saelab.ground.held_out import HeldOut
from saelab.runs import Source, WorldSource
from saelab.sae.module import SAE
from saelab.store import CorruptFile, read_json, write_json
from saelab.train import Health
from saelab.train.health import score_problems
from saelab.types import Score

SCORE = tuple(field.name for field in fields(Score))  # older files say more
# writes a result in somebody else's format, where that has a place for it
Export = Callable[[Path, Source | WorldSource, SAE, Result], None]


@dataclass(frozen=True)
class Bench:
    """What evaluations share across SAEs of one source: prepared data by evaluation name."""

    source: Source | WorldSource
    prepared: Mapping[str, Any]


def prepare_bench(held: HeldOut, evals: Sequence[str]) -> Bench:
    """Prepare every evaluation on the held-out data of one source."""
    return Bench(held.source, {name: EVALS[name].prepare(held) for name in evals})


def evaluate_into(
    folder: Path, sae: SAE, bench: Bench, exports: Iterable[Export] = ()
) -> dict[str, Score]:
    """Measure `sae` and write `<folder>/eval/<name>.json`, the result's files and exports; return
    all scores by name.

    The evaluation's own file is written last: where it is, the rest is too.
    """
    scores: dict[str, Score] = {}
    for name, data in bench.prepared.items():
        result = EVALS[name].measure(sae, data)
        for file, content in result.files.items():
            write_json(folder / "eval" / f"{file}.json", content)
        for export in exports:
            export(folder / "eval", bench.source, sae, result)
        write_json(folder / "eval" / f"{name}.json", result.to_json())
        scores |= result.scores
    return scores


def read_scores(folder: Path, evals: Sequence[str]) -> dict[str, Score]:
    """The scores written by `evaluate_into`; an evaluation that was not made adds none. Raises
    `CorruptFile`.
    """
    scores: dict[str, Score] = {}
    for name in evals:
        path = folder / "eval" / f"{name}.json"
        if not path.exists():
            continue
        try:
            for key, score in read_json(path)["scores"].items():
                scores[key] = Score(**{name: score[name] for name in SCORE})
        except (KeyError, TypeError, AttributeError) as error:
            raise CorruptFile(
                f"{path} holds no scores ({error!r}); remove it and run again"
            ) from error
    return scores


def read_tables(folder: Path, evals: Sequence[str]) -> list[Table]:
    """The tables written by `evaluate_into`, in the order of the evaluations."""
    return [
        Table(**table)
        for name in evals
        for table in read_json(folder / "eval" / f"{name}.json")["tables"].values()
    ]


def with_scores(health: Health, scores: Mapping[str, Score]) -> Health:
    """The training's verdict, made stricter by what held-out text says."""
    named = [problem.split(":")[0] for problem in health.problems]
    more = [text for text in score_problems(scores) if text.split(":")[0] not in named]
    problems = (*health.problems, *more)
    return Health(not problems, problems, health.warnings)
