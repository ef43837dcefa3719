"""Evaluate trained SAEs on held-out text and write the results under `<folder>/eval/`."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saelab.evals import EVALS
from saelab.evals.core.examples import latent_examples
from saelab.evals.core.measure import CoreResult
from saelab.ground.held_out import HeldOut
from saelab.runs import Source
from saelab.store import CorruptFile, read_json, write_json
from saelab.train import Health
from saelab.types import Dictionary, Score

# writes a core result in somebody else's format
Export = Callable[[Path, Source, Dictionary, CoreResult], None]


@dataclass(frozen=True)
class Bench:
    """A language model with what evaluations share across SAEs: prepared data by evaluation
    name.
    """

    lm: Any
    source: Any
    prepared: Mapping[str, Any]


def prepare_bench(held: HeldOut, evals: Sequence[str]) -> Bench:
    """Prepare every evaluation on the held-out data of one source."""
    return Bench(held.lm, held.source, {name: EVALS[name].prepare(held) for name in evals})


def evaluate_into(
    folder: Path, sae: Dictionary, bench: Bench, exports: Iterable[Export] = ()
) -> dict[str, Score]:
    """Measure `sae` and write `<folder>/eval/<name>.json`, latents and exports; return all scores
    by name.

    The evaluation's own file is written last: where it is, the rest is too.
    """
    scores: dict[str, Score] = {}
    for name, data in bench.prepared.items():
        result = EVALS[name].measure(sae, data)
        if isinstance(result, CoreResult):
            examples = [asdict(example) for example in latent_examples(sae, data, bench.lm)]
            write_json(folder / "eval" / "latents.json", {"latents": examples})
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
        if path.exists():
            try:
                scores |= {key: Score(**score) for key, score in read_json(path)["scores"].items()}
            except (KeyError, TypeError, AttributeError) as error:
                raise CorruptFile(
                    f"{path} holds no scores ({error!r}); remove it and run again"
                ) from error
    return scores


def concept_table(home: Path, run: str, name: str = "concepts") -> list[dict[str, Any]]:
    """The rows of `eval/<name>.json` of a run that has one per concept, in its own folder or in an
    output folder.
    """
    own = home / "runs" / run
    return read_json((own if own.exists() else home) / "eval" / f"{name}.json")["concepts"]


def with_scores(health: Health, scores: Mapping[str, Score]) -> Health:
    """The training's verdict, made stricter by what held-out text says."""
    problems = [
        *health.problems,
        *(text for text in score_problems(scores) if not _known(text, health.problems)),
    ]
    return Health(not problems, tuple(problems), health.warnings)


def score_problems(scores: Mapping[str, Score]) -> list[str]:
    """Why an evaluated SAE does not count: it codes nothing, or is no better than the mean on
    held-out text.
    """
    problems = []
    if "l0" in scores and not scores["l0"].value:
        problems.append("NothingActive: L0 is 0 on held-out text, no latent ever fires")
    if "explained_variance" in scores:
        ev = scores["explained_variance"].value
        if ev is None or not math.isfinite(ev):
            problems.append(
                "UndefinedVariance: the explained variance on held-out text is undefined"
            )
        elif ev <= 0:
            problems.append(
                f"NoBetterThanMean: explained variance {ev:.3f} on held-out text is not above 0, "
                "the reconstruction is no better than the mean"
            )
    return problems


def _known(problem: str, others: Sequence[str]) -> bool:
    return any(other.split(":")[0] == problem.split(":")[0] for other in others)
