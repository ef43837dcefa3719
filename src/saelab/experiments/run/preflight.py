"""What can be refused before the language model loads is refused here, in one sentence with the
numbers.
"""

from collections.abc import Sequence
from pathlib import Path

from saelab.evals import check_evals
from saelab.experiments.plan import Plan, check_plan
from saelab.ground.ground import kind_of
from saelab.runs import Run, Source, WorldSource
from saelab.store import canonical_json, check_disk
from saelab.synth.world import World
from saelab.synth.worlds import build_world
from saelab.variants import VARIANTS, build, check_spec


def preflight(plan: Plan, *, own_build: bool) -> None:
    """Check the plan, every spec, every source and every evaluation. Raises `ValueError` or
    `FileNotFoundError`.

    `own_build`: the caller builds the variants itself, so that their names and settings are its own
    business.
    """
    check_plan(plan)
    for run in plan.runs:
        if not own_build or run.spec.variant in VARIANTS:
            check_spec(run.spec)
    for source in {_alike(run): run.source for run in plan.runs}.values():
        kind_of(source).check(source)
        check_evals(plan.evals, source)
    if not own_build:
        _check_batches(plan)


def sources(runs: Sequence[Run]) -> list[Source | WorldSource]:
    """The different sources of `runs`, in order of appearance."""
    different: list[Source | WorldSource] = []
    for run in runs:
        different += [] if run.source in different else [run.source]
    return different


def _alike(run: Run) -> str:
    """What sources that can be checked together have in common: all but the seed."""
    source = run.config["source"]
    return canonical_json({key: value for key, value in source.items() if key != "seed"})


def _check_batches(plan: Plan) -> None:
    """Refuse a variant that reads batches, or asks a model, which its world does not have. Raises
    `ValueError`.
    """
    worlds: dict[str, World] = {}  # large ones take seconds to build; rows and seeds share them
    # the seeds of a row ask for the same
    for run in {(run.spec.name, _alike(run)): run for run in plan.runs}.values():
        if not isinstance(run.source, WorldSource):  # a language model's stream has everything
            continue
        source = _alike(run)
        if source not in worlds:
            worlds[source] = build_world(run.source)
        build(run.spec, 1, run.seed).check_source(run.spec.name, worlds[source])


def check_results(runs: Sequence[Run], d_in: int, out: Path) -> None:
    """Raise `OSError` when the results and a checkpoint of `runs`, training together, do not fit on
    the disk.

    An SAE has 2*D*L weights of 4 bytes; a checkpoint holds them with two Adam moments and is
    written beside the old one.
    """
    weights = sum(2 * d_in * run.spec.n_latents * 4 for run in runs)
    check_disk(out, "results and checkpoints need", weights * (1 + 2 * 3))
