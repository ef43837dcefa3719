"""The ten-line way: train one run and read its scores."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saelab.experiments.evaluate.score import read_scores
from saelab.experiments.folders import run_folder
from saelab.experiments.listen import Listener
from saelab.experiments.plan import Plan, run_name
from saelab.experiments.run.execute import execute
from saelab.runs import Run
from saelab.sae.module import SAE
from saelab.train import Health
from saelab.types import Score


@dataclass(frozen=True)
class TrainedRun:
    """One trained and evaluated run: `result.metrics["explained_variance"].value`."""

    folder: Path
    run: Run
    sae: SAE
    metrics: Mapping[str, Score]
    health: Health


def train_sae(
    run: Run,
    out: str | os.PathLike[str],
    *,
    evals: Sequence[str] = (),
    listener: Listener | None = None,
) -> TrainedRun:
    """Train `run` in the folder `out` (or go on, or read what is there), evaluate it, and return
    the result.

    Raises `ValueError` for what cannot work before the language model loads, `UnhealthyRun` when
    the run does not pass the health gate; its files are written all the same.
    """
    # called after the run, so that the folder belongs to that run alone
    plan, folder = Plan(run_name(run), (run,), evals=tuple(evals)), run_folder(Path(out), run)
    execute(plan, Path(out), listener=listener).check()
    scores = read_scores(folder.path, plan.evals)
    return TrainedRun(folder.path, run, folder.load(), scores, folder.health())
